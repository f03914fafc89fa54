<?php
// What build.php and submit.php have in common: the tar of a request, and sending it with ext-curl.

const ATTEMPTS = 60;

class BuilderException extends RuntimeException
{
}

// The tar's path. Remove it when it was sent.
function pack_context(string $directory, string $image): string
{
    $directory = rtrim($directory, '/');
    $file = sys_get_temp_dir() . '/build-' . bin2hex(random_bytes(8)) . '.tar';
    $tar = new PharData($file);
    $tar['com.openfaas.docker.config'] = json_encode(['image' => $image], JSON_UNESCAPED_SLASHES);
    $flags = FilesystemIterator::SKIP_DOTS;
    $entries = new RecursiveIteratorIterator(new RecursiveDirectoryIterator($directory, $flags));
    foreach ($entries as $path => $entry) {
        $tar->addFile($path, 'context/' . substr($path, strlen($directory) + 1));
    }
    return $file;
}

// Sends a request, with a file as its body if there is one, and gives each line of a successful answer
// to $take. Returns null, or how many seconds to wait before the request is sent again.
function send_request(string $url, array $headers, ?string $file, callable $take): ?int
{
    $curl = curl_init($url);
    $text = $rest = '';
    $seconds = 1;
    curl_setopt_array($curl, [
        CURLOPT_HTTPHEADER => $headers,
        CURLOPT_CONNECTTIMEOUT => 10,
        // The builder is never silent for longer than 15 seconds.
        CURLOPT_LOW_SPEED_LIMIT => 1,
        CURLOPT_LOW_SPEED_TIME => 60,
        CURLOPT_HEADERFUNCTION => function ($curl, string $header) use (&$seconds): int {
            if (preg_match('/^retry-after: *(\d+)/i', $header, $found)) {
                $seconds = (int) $found[1];
            }
            return strlen($header);
        },
        CURLOPT_WRITEFUNCTION => function ($curl, string $bytes) use (&$text, &$rest, $take): int {
            if (curl_getinfo($curl, CURLINFO_RESPONSE_CODE) >= 300) {
                $text .= $bytes;
                return strlen($bytes);
            }
            $lines = explode("\n", $rest . $bytes);
            $rest = array_pop($lines);
            array_map($take, $lines);
            return strlen($bytes);
        },
    ]);
    if ($file !== null) {
        curl_setopt_array($curl, [
            CURLOPT_UPLOAD => true,
            CURLOPT_CUSTOMREQUEST => 'POST',
            CURLOPT_INFILE => fopen($file, 'rb'),
            CURLOPT_INFILESIZE => filesize($file),
        ]);
    }
    curl_exec($curl);
    $status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);
    if ($status >= 300 && !in_array($status, [429, 502, 503, 504])) {
        throw new BuilderException("refused: $status: $text");
    }
    if ($rest !== '') {
        $take($rest);
    }
    // Without a status, the connection was lost or not made.
    return $status >= 200 && $status < 300 ? null : $seconds;
}

function pause(int $seconds): void
{
    fwrite(STDERR, "the builder is away or busy: trying again in $seconds s\n");
    sleep($seconds);
}

function builder_url(): string
{
    $given = getenv('OPENFAAS_REMOTE_BUILDER') ?: 'http://127.0.0.1:8080';
    return preg_replace('~(/build)?/?$~D', '', $given, 1); // old versions of faas-cli want it with /build
}

function payload_secret(): string
{
    $text = @file_get_contents(getenv('OPENFAAS_PAYLOAD_SECRET') ?: '.run/payload-secret');
    return $text !== false ? trim($text) : fail('set OPENFAAS_PAYLOAD_SECRET to the file with the secret');
}

function fail(string $message): never
{
    fwrite(STDERR, "$message\n");
    exit(1);
}
