<?php
// Submit a build that outlives this program, and follow it: php submit.php DIR IMAGE
// To follow a build that was submitted before: php submit.php ID

require_once __DIR__ . '/builder.php';

final class Builds
{
    public function __construct(private string $url, private string $secret)
    {
    }

    /**
     * Queue a build, and return its id. All attempts have one key, so that a lost answer does not make
     * a second build. The builder sends the end of the build to $callback: callback.php.
     */
    public function submit(string $directory, string $image, string $callback = ''): string
    {
        $build = null;
        $take = function (string $line) use (&$build): void {
            $build = json_decode($line, true);
        };
        $headers = [
            'Content-Type: application/octet-stream',
            'Prefer: respond-async',
            'Idempotency-Key: "' . bin2hex(random_bytes(16)) . '"',
        ];
        if ($callback !== '') {
            $headers[] = "X-Callback-Url: $callback";
        }
        $file = pack_context($directory, $image);
        try {
            $signature = 'sha256=' . hash_hmac_file('sha256', $file, $this->secret);
            for ($attempt = 0; $attempt < ATTEMPTS; $attempt++) {
                $sent = [...$headers, ...$this->proof($signature)];
                $seconds = send_request("$this->url/build", $sent, $file, $take);
                if (isset($build['buildId'])) {
                    return $build['buildId'];
                }
                pause($seconds ?? 1);
            }
        } finally {
            unlink($file);
        }
        throw new BuilderException('the builder stayed away');
    }

    /** Give each line of the log to $onLog, and return its last object, which has the result. */
    public function follow(string $id, callable $onLog): array
    {
        $after = 0;
        $end = null;
        for ($attempt = 0; $attempt < ATTEMPTS; $attempt++) {
            $target = "/builds/$id/log?after=$after";
            $take = function (string $line) use (&$after, &$attempt, &$end, $onLog): void {
                $event = json_decode($line, true);
                if ($event === null) {
                    return; // a line that was cut off
                }
                if ($event['status'] !== 'in_progress') {
                    $end = $event;
                    return;
                }
                array_map($onLog, $event['log'] ?? []);
                $after = $event['after'] ?? $after;
                $attempt = 0;
            };
            $proof = $this->proof($this->mac("GET $target"));
            $seconds = send_request($this->url . $target, $proof, null, $take);
            if ($end !== null) {
                return $end;
            }
            // The connection was lost, and the build goes on.
            if ($seconds !== null) {
                pause($seconds);
            }
        }
        throw new BuilderException('the builder stayed away');
    }

    private function proof(string $signature): array
    {
        $now = sprintf('%.3F', microtime(true));
        return [
            "X-Build-Signature: $signature",
            "X-Build-Timestamp: $now " . $this->mac("$now $signature"),
        ];
    }

    private function mac(string $data): string
    {
        return 'sha256=' . hash_hmac('sha256', $data, $this->secret);
    }
}

if (realpath($argv[0]) === __FILE__) {
    if ($argc < 2 || $argc > 3) {
        fail('usage: php submit.php DIR IMAGE, or php submit.php ID');
    }
    $builds = new Builds(builder_url(), payload_secret());
    try {
        $id = $argv[1];
        if ($argc === 3) {
            $id = $builds->submit($argv[1], $argv[2], getenv('CALLBACK_URL') ?: '');
            fwrite(STDERR, "build $id is queued\n");
        }
        $result = $builds->follow($id, fn (string $text) => print("$text\n"));
    } catch (BuilderException $error) {
        fail($error->getMessage());
    }
    if ($result['status'] !== 'success') {
        fail("build failed: {$result['error']}");
    }
    echo implode('@', array_filter([$result['image'] ?? '', $result['digest'] ?? ''])), "\n";
}
