<?php
// Submit a build that outlives this program, and follow it: php submit.php DIR IMAGE
// To follow a build that was submitted before: php submit.php ID

require __DIR__ . '/pack.php';

use GuzzleHttp\Client;
use GuzzleHttp\Exception\TransferException;
use GuzzleHttp\Psr7\Utils;
use Psr\Http\Message\ResponseInterface;

const ATTEMPTS = 60;

// The headers that prove a request: $signed is its body, or its method and target.
function proof(string $signed): array
{
    $signature = mac($signed);
    $now = sprintf('%.3F', microtime(true));
    return [
        'X-Build-Signature' => $signature,
        'X-Build-Timestamp' => "$now " . mac("$now $signature"),
    ];
}

// An answer, or null if the request is to be sent again.
function ask(string $method, string $target, array $options): ?ResponseInterface
{
    // The builder is never silent for longer than 15 seconds.
    $client = new Client(['http_errors' => false, 'stream' => true, 'read_timeout' => 60]);
    $seconds = 1;
    try {
        $reply = $client->request($method, builder_url() . $target, $options);
        if (intdiv($reply->getStatusCode(), 100) === 2) {
            return $reply;
        }
        if (!in_array($reply->getStatusCode(), [429, 502, 503, 504])) {
            fail("refused: {$reply->getStatusCode()}: {$reply->getBody()}");
        }
        $seconds = (int) ($reply->getHeaderLine('Retry-After') ?: 1);
    } catch (TransferException) {
        // The connection was lost, or not made.
    }
    fwrite(STDERR, "the builder is away or busy: trying again in $seconds s\n");
    sleep($seconds);
    return null;
}

// All attempts have one key, so that a lost answer does not make a second build.
function submit(string $body): string
{
    $headers = [
        'Content-Type' => 'application/octet-stream',
        'Prefer' => 'respond-async',
        'Idempotency-Key' => '"' . bin2hex(random_bytes(16)) . '"',
    ];
    if ($callback = getenv('CALLBACK_URL')) { // see callback.php
        $headers['X-Callback-Url'] = $callback;
    }
    for ($attempt = 0; $attempt < ATTEMPTS; $attempt++) {
        $reply = ask('POST', '/build', ['headers' => proof($body) + $headers, 'body' => $body]);
        $build = $reply ? json_decode(read($reply), true) : null;
        if ($build['buildId'] ?? null) {
            return $build['buildId'];
        }
    }
    fail('the builder stayed away');
}

function read(ResponseInterface $reply): string
{
    try {
        return (string) $reply->getBody();
    } catch (RuntimeException) {
        return '';
    }
}

// Print the log, and return its last object, which has the result.
function follow(string $id): array
{
    $after = 0;
    for ($attempt = 0; $attempt < ATTEMPTS; $attempt++) {
        $target = "/builds/$id/log?after=$after";
        $reply = ask('GET', $target, ['headers' => proof("GET $target")]);
        try {
            while ($reply && ($line = Utils::readLine($reply->getBody())) !== '') {
                $event = json_decode($line, true);
                if ($event === null) {
                    break; // a line that was cut off
                }
                if ($event['status'] !== 'in_progress') {
                    return $event;
                }
                foreach ($event['log'] ?? [] as $text) {
                    echo "$text\n";
                }
                $after = $event['after'] ?? $after;
                $attempt = 0;
            }
        } catch (RuntimeException) {
            // The connection was lost, and the build goes on.
        }
    }
    fail('the builder stayed away');
}

$id = $argv[1];
if (isset($argv[2])) {
    $id = submit(pack_context(rtrim($argv[1], '/'), $argv[2]));
    fwrite(STDERR, "build $id is queued\n");
}
$result = follow($id);
if ($result['status'] !== 'success') {
    fail("build failed: {$result['error']}");
}
echo implode('@', array_filter([$result['image'] ?? '', $result['digest'] ?? ''])), "\n";
