<?php
// What build.php and submit.php have in common: the tar of a directory, the builder's address, its secret.

// Composer's Guzzle, or Debian's (php-guzzlehttp-guzzle).
require is_file('vendor/autoload.php') ? 'vendor/autoload.php' : 'GuzzleHttp/autoload.php';

function pack_context(string $directory, string $image): string
{
    $file = tempnam(sys_get_temp_dir(), 'build-') . '.tar';
    $tar = new PharData($file);
    $tar['com.openfaas.docker.config'] = json_encode(['image' => $image], JSON_UNESCAPED_SLASHES);
    $flags = FilesystemIterator::SKIP_DOTS;
    $entries = new RecursiveIteratorIterator(new RecursiveDirectoryIterator($directory, $flags));
    foreach ($entries as $path => $entry) {
        $tar->addFile($path, 'context/' . substr($path, strlen($directory) + 1));
    }
    $body = file_get_contents($file);
    unlink($file);
    unlink(substr($file, 0, -4));
    return $body;
}

function builder_url(): string
{
    $given = getenv('OPENFAAS_REMOTE_BUILDER') ?: 'http://127.0.0.1:8080';
    return preg_replace('~(/build)?/?$~D', '', $given, 1); // old versions of faas-cli want it with /build
}

function mac(string $data): string
{
    $secret = trim(file_get_contents(getenv('OPENFAAS_PAYLOAD_SECRET') ?: '.run/payload-secret'));
    return 'sha256=' . hash_hmac('sha256', $data, $secret);
}

function fail(string $message): never
{
    fwrite(STDERR, "$message\n");
    exit(1);
}
