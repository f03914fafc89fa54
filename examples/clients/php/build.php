<?php
// Build a directory with Guzzle and PharData, and push it: php build.php DIR IMAGE

// Composer's Guzzle, or Debian's (php-guzzlehttp-guzzle).
require is_file('vendor/autoload.php') ? 'vendor/autoload.php' : 'GuzzleHttp/autoload.php';

use GuzzleHttp\Client;
use GuzzleHttp\Psr7\Utils;
use Psr\Http\Message\ResponseInterface;

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

function post(string $body): ResponseInterface
{
    $given = getenv('OPENFAAS_REMOTE_BUILDER') ?: 'http://127.0.0.1:8080';
    $url = preg_replace('~(/build)?/?$~D', '', $given, 1); // old versions of faas-cli want it with /build
    $secret = trim(file_get_contents(getenv('OPENFAAS_PAYLOAD_SECRET') ?: '.run/payload-secret'));
    $headers = [
        'X-Build-Signature' => 'sha256=' . hash_hmac('sha256', $body, $secret),
        'Content-Type' => 'application/octet-stream',
        'Accept' => 'application/x-ndjson',
    ];
    // The builder is never silent for longer than 15 seconds.
    $client = new Client(['http_errors' => false, 'stream' => true, 'read_timeout' => 60]);
    for ($attempt = 1; ; $attempt++) {
        $reply = $client->post("$url/build", ['headers' => $headers, 'body' => $body]);
        if ($reply->getStatusCode() !== 429 || $attempt === 60) {
            return $reply;
        }
        $seconds = (int) ($reply->getHeaderLine('Retry-After') ?: 5);
        fwrite(STDERR, "the builder is busy: trying again in $seconds s\n");
        sleep($seconds);
    }
}

function fail(string $message): never
{
    fwrite(STDERR, "$message\n");
    exit(1);
}

[, $directory, $image] = $argv;
$reply = post(pack_context(rtrim($directory, '/'), $image));
if ($reply->getStatusCode() !== 200) {
    fail("refused: {$reply->getStatusCode()}: {$reply->getBody()}");
}
$last = ['error' => "the builder was lost before the build's end"];
while (($line = Utils::readLine($reply->getBody())) !== '') {
    $event = json_decode($line, true, flags: JSON_THROW_ON_ERROR);
    $last = $event + $last;
    foreach ($event['log'] ?? [] as $text) {
        echo "$text\n";
    }
}
if (($last['status'] ?? '') !== 'success') {
    fail("build failed: {$last['error']}");
}
