<?php
// Build a directory with Guzzle and PharData, and push it: php build.php DIR IMAGE

require __DIR__ . '/pack.php';

use GuzzleHttp\Client;
use GuzzleHttp\Psr7\Utils;
use Psr\Http\Message\ResponseInterface;

function post(string $body): ResponseInterface
{
    $headers = [
        'X-Build-Signature' => mac($body),
        'Content-Type' => 'application/octet-stream',
        'Accept' => 'application/x-ndjson',
    ];
    // The builder is never silent for longer than 15 seconds.
    $client = new Client(['http_errors' => false, 'stream' => true, 'read_timeout' => 60]);
    for ($attempt = 1; ; $attempt++) {
        $reply = $client->post(builder_url() . '/build', ['headers' => $headers, 'body' => $body]);
        if ($reply->getStatusCode() !== 429 || $attempt === 60) {
            return $reply;
        }
        $seconds = (int) ($reply->getHeaderLine('Retry-After') ?: 5);
        fwrite(STDERR, "the builder is busy: trying again in $seconds s\n");
        sleep($seconds);
    }
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
