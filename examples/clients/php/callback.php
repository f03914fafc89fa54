<?php
// Receive callbacks of builds: php -S 127.0.0.1:9000 callback.php

const TOLERANCE_SECONDS = 300;

/**
 * The event in a callback's body; throws a RuntimeException that says in one line what is wrong.
 * Give it the body's bytes as they were received, and headers with names in lower case.
 */
function verify(string $body, array $headers, string $webhookSecret, string $payloadSecret): array
{
    foreach (['webhook-id', 'webhook-timestamp', 'webhook-signature'] as $name) {
        if (!isset($headers[$name])) {
            throw new RuntimeException("no $name: this is not a callback, or a proxy removed it");
        }
    }
    $timestamp = $headers['webhook-timestamp'];
    if (!ctype_digit($timestamp) || abs(time() - (int) $timestamp) > TOLERANCE_SECONDS) {
        throw new RuntimeException('webhook-timestamp is too old or too new: compare the clocks');
    }
    $key = base64_decode(preg_replace('/^whsec_/', '', $webhookSecret), true);
    $mac = base64_encode(hash_hmac('sha256', "{$headers['webhook-id']}.$timestamp.$body", $key, true));
    // While the secret rotates, there is one signature for the new and one for the old secret.
    $matching = array_filter(
        explode(' ', $headers['webhook-signature']),
        fn (string $signature) => hash_equals("v1,$mac", $signature),
    );
    if (!$matching) {
        throw new RuntimeException('webhook-signature does not match: compare the webhook secrets');
    }
    // The same body under the payload secret, as a request to build is signed.
    $wanted = 'sha256=' . hash_hmac('sha256', $body, $payloadSecret);
    if (!hash_equals($wanted, $headers['x-build-signature'] ?? '')) {
        throw new RuntimeException('X-Build-Signature does not match: compare the payload secrets');
    }
    return json_decode($body, true, flags: JSON_THROW_ON_ERROR);
}

function secret(string $variable, string $otherwise): string
{
    $text = @file_get_contents(getenv($variable) ?: $otherwise);
    return $text !== false ? trim($text) : throw new RuntimeException("set $variable to the file with the secret");
}

if (PHP_SAPI === 'cli-server') {
    try {
        $event = verify(
            file_get_contents('php://input'),
            array_change_key_case(getallheaders()),
            secret('WEBHOOK_SECRET_FILE', '.run/webhook-secret'),
            secret('OPENFAAS_PAYLOAD_SECRET', '.run/payload-secret'),
        );
        // Remember webhook-id in a database: a callback may come twice, with one id.
        error_log("{$event['type']} {$event['data']['buildId']} {$event['data']['status']}");
        http_response_code(204);
    } catch (RuntimeException | JsonException $error) {
        error_log("refused: {$error->getMessage()}");
        http_response_code(401);
        echo $error->getMessage();
    }
} elseif (realpath($argv[0]) === __FILE__) {
    fwrite(STDERR, "usage: php -S 127.0.0.1:9000 callback.php\n");
    exit(1);
}
