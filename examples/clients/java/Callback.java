// Receive callbacks of builds: java Callback.java [HOST:PORT]

import com.google.gson.Gson;
import com.google.gson.JsonSyntaxException;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.UnaryOperator;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Verifies callbacks. The webhook secret is whsec_ and base64. */
public record Callback(String webhookSecret, byte[] payloadSecret) {
    private static final int MAX_BODY_BYTES = 20_000;
    private static final Duration TOLERANCE = Duration.ofMinutes(5);

    /** A callback's body. */
    public record Event(String type, String timestamp, Build data) { }

    /** The build in a callback. */
    public record Build(String buildId, String status, String image, String digest, String error) { }

    /** A callback to refuse; the message is one line that says what is wrong. */
    public static final class Refused extends Exception {
        Refused(String message) {
            super(message);
        }
    }

    /**
     * Reads the event in a callback's body. Give it the body's bytes as they were received, and a function
     * that returns the value of a header, or null.
     */
    public Event verify(byte[] body, UnaryOperator<String> headers) throws Refused {
        String id = headers.apply("webhook-id");
        String timestamp = headers.apply("webhook-timestamp");
        String signatures = headers.apply("webhook-signature");
        if (id == null || timestamp == null || signatures == null) {
            throw new Refused("this is not a callback, or a proxy removed webhook-* headers");
        }
        if (!timestamp.matches("\\d{1,12}") || Duration.between(
                Instant.ofEpochSecond(Long.parseLong(timestamp)), Instant.now()).abs().compareTo(TOLERANCE) > 0) {
            throw new Refused("webhook-timestamp is too old or too new: compare the clocks");
        }
        byte[] key = Base64.getDecoder().decode(webhookSecret.replaceFirst("^whsec_", ""));
        byte[] prefix = (id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8);
        String wanted = "v1," + Base64.getEncoder().encodeToString(hmac(key, prefix, body));
        // While the secret rotates, there is one signature for the new and one for the old secret.
        if (Arrays.stream(signatures.split(" ")).noneMatch(signature -> equal(signature, wanted))) {
            throw new Refused("webhook-signature does not match: compare the webhook secrets");
        }
        // The same body under the payload secret, as a request to build is signed.
        String mac = "sha256=" + HexFormat.of().formatHex(hmac(payloadSecret, new byte[0], body));
        if (!equal(Objects.requireNonNullElse(headers.apply("X-Build-Signature"), ""), mac)) {
            throw new Refused("X-Build-Signature does not match: compare the payload secrets");
        }
        try {
            return new Gson().fromJson(new String(body, StandardCharsets.UTF_8), Event.class);
        } catch (JsonSyntaxException error) {
            throw new Refused("the body is not JSON");
        }
    }

    private static boolean equal(String one, String other) {
        return MessageDigest.isEqual(one.getBytes(StandardCharsets.UTF_8), other.getBytes(StandardCharsets.UTF_8));
    }

    private static byte[] hmac(byte[] key, byte[] prefix, byte[] body) {
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(key, "HmacSHA256"));
            mac.update(prefix);
            return mac.doFinal(body);
        } catch (GeneralSecurityException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    // Keep it in a database: a callback may come twice, with one id.
    private static final Set<String> SEEN = ConcurrentHashMap.newKeySet();

    private void receive(HttpExchange exchange) throws IOException {
        try (exchange) {
            byte[] body = exchange.getRequestBody().readNBytes(MAX_BODY_BYTES + 1);
            if (body.length > MAX_BODY_BYTES) {
                refuse(exchange, 413, "too large for a callback");
                return;
            }
            Event event;
            try {
                event = verify(body, exchange.getRequestHeaders()::getFirst);
            } catch (Refused error) {
                refuse(exchange, 401, error.getMessage());
                return;
            }
            if (SEEN.add(exchange.getRequestHeaders().getFirst("webhook-id"))) {
                System.out.printf("%s %s %s%n", event.type(), event.data().buildId(), event.data().status());
            }
            exchange.sendResponseHeaders(204, -1);
        }
    }

    private static void refuse(HttpExchange exchange, int status, String reason) throws IOException {
        System.err.println("refused: " + reason);
        byte[] text = reason.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(status, text.length);
        exchange.getResponseBody().write(text);
    }

    public static void main(String[] arguments) throws IOException {
        URI address = URI.create("http://" + (arguments.length > 0 ? arguments[0] : "127.0.0.1:9000"));
        String webhookSecret = secret("WEBHOOK_SECRET_FILE", ".run/webhook-secret");
        String payloadSecret = secret("OPENFAAS_PAYLOAD_SECRET", ".run/payload-secret");
        var callback = new Callback(webhookSecret, payloadSecret.getBytes(StandardCharsets.UTF_8));
        var server = HttpServer.create(new InetSocketAddress(address.getHost(), address.getPort()), 0);
        server.createContext("/", callback::receive);
        server.start();
        System.out.printf("receiving on http://%s:%d/%n", address.getHost(), server.getAddress().getPort());
    }

    private static String secret(String variable, String otherwise) {
        String file = System.getenv().getOrDefault(variable, otherwise);
        try {
            return Files.readString(Path.of(file)).strip();
        } catch (IOException error) {
            System.err.printf("set %s to the file with the secret: %s%n", variable, error);
            System.exit(1);
            throw new IllegalStateException(error);
        }
    }
}
