<?php
// Build a directory with curl and PharData, and push it: php build.php DIR IMAGE

require_once __DIR__ . '/builder.php';

/**
 * Build a directory with a Dockerfile, and push the image. Returns the last object of the log, with
 * image and digest; throws a BuilderException that says in one line why there is no image.
 */
function build(string $directory, string $image, string $url, string $secret, callable $onLog): array
{
    $last = [];
    $take = function (string $line) use (&$last, $onLog): void {
        $last = json_decode($line, true) ?? [];
        array_map($onLog, $last['log'] ?? []);
    };
    $file = pack_context($directory, $image);
    try {
        $headers = [
            'X-Build-Signature: sha256=' . hash_hmac_file('sha256', $file, $secret),
            'Content-Type: application/octet-stream',
            'Accept: application/x-ndjson',
        ];
        for ($attempt = 1; $attempt < ATTEMPTS; $attempt++) {
            $seconds = send_request("$url/build", $headers, $file, $take);
            if ($seconds === null) {
                break;
            }
            pause($seconds);
        }
    } finally {
        unlink($file);
    }
    if (($last['status'] ?? '') !== 'success') {
        $error = $last['error'] ?? "the builder was lost before the build's end";
        throw new BuilderException("build failed: $error");
    }
    return $last;
}

if (realpath($argv[0]) === __FILE__) {
    if ($argc !== 3) {
        fail('usage: php build.php DIR IMAGE');
    }
    try {
        $show = fn (string $text) => print("$text\n");
        $result = build($argv[1], $argv[2], builder_url(), payload_secret(), $show);
    } catch (BuilderException $error) {
        fail($error->getMessage());
    }
    echo "{$result['image']}@{$result['digest']}\n";
}
