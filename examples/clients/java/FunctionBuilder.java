// Build a directory and push it: java FunctionBuilder.java build DIR IMAGE
// Submit a build that outlives this program, and follow it: java FunctionBuilder.java submit DIR IMAGE
// Follow a build that was submitted before: java FunctionBuilder.java submit ID

import com.google.gson.Gson;
import com.google.gson.JsonSyntaxException;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.time.Duration;
import java.time.Instant;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import org.apache.commons.compress.archivers.tar.TarArchiveEntry;
import org.apache.commons.compress.archivers.tar.TarArchiveOutputStream;
import org.apache.commons.compress.archivers.tar.TarConstants;

/** A builder's URL, and the payload secret. */
public record FunctionBuilder(String url, byte[] secret) {
    private static final int ATTEMPTS = 60;
    private static final Gson GSON = new Gson();
    private static final HttpClient CLIENT = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .connectTimeout(Duration.ofSeconds(10))
            .build();

    /** One object of a log; the last one has the result. */
    public record Event(String buildId, String status, List<String> log, Integer after, String image,
                        String digest, String error) {
        boolean ended() {
            return !"in_progress".equals(status);
        }
    }

    /** The builder refused a request, or a build failed; the message is one line that says why. */
    public static final class BuilderException extends Exception {
        BuilderException(String message) {
            super(message);
        }
    }

    /** Builds a directory with a Dockerfile, and pushes the image. Gives each line of the log to onLog. */
    public Event build(Path directory, String image, Consumer<String> onLog)
            throws IOException, InterruptedException, BuilderException {
        Path tar = pack(directory, image);
        try {
            String signature = sign(tar);
            Map<String, String> headers = Map.of(
                    "Content-Type", "application/octet-stream", "Accept", "application/x-ndjson");
            for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
                var reply = ask("POST", "/build", signature, BodyPublishers.ofFile(tar), headers);
                if (reply.isPresent()) {
                    return success(follow(reply.get().body(), onLog));
                }
            }
        } finally {
            Files.delete(tar);
        }
        throw new BuilderException("the builder stayed busy");
    }

    /**
     * Queues a build, and returns its id. All attempts have one key, so that a lost answer does not make
     * a second build. The builder sends the end of the build to the callback, unless that is null.
     */
    public String submit(Path directory, String image, String callback)
            throws IOException, InterruptedException, BuilderException {
        Path tar = pack(directory, image);
        try {
            String signature = sign(tar);
            var headers = Stream.of(
                            Map.entry("Content-Type", "application/octet-stream"),
                            Map.entry("Prefer", "respond-async"),
                            Map.entry("Idempotency-Key", "\"" + UUID.randomUUID() + "\""),
                            Map.entry("X-Callback-Url", Objects.requireNonNullElse(callback, "")))
                    .filter(header -> !header.getValue().isEmpty())
                    .collect(Collectors.toMap(Map.Entry::getKey, Map.Entry::getValue));
            for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
                var reply = ask("POST", "/build", signature, BodyPublishers.ofFile(tar), headers);
                String id = reply.isPresent() ? follow(reply.get().body(), line -> { }).buildId() : null;
                if (id != null) {
                    return id;
                }
            }
        } finally {
            Files.delete(tar);
        }
        throw new BuilderException("the builder stayed away");
    }

    /** Gives the log of a submitted build to onLog, over lost connections, until the build ends. */
    public Event follow(String id, Consumer<String> onLog)
            throws IOException, InterruptedException, BuilderException {
        int after = 0;
        for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
            String target = "/builds/" + id + "/log?after=" + after;
            String signature = mac("GET " + target);
            var reply = ask("GET", target, signature, BodyPublishers.noBody(), Map.of());
            if (reply.isPresent()) {
                Event last = follow(reply.get().body(), onLog);
                if (last.status() != null && last.ended()) {
                    return success(last);
                }
                if (last.after() != null) {
                    after = last.after();
                    attempt = 0;
                }
            }
        }
        throw new BuilderException("the builder stayed away");
    }

    // The last whole object of an answer. A lost connection ends the answer.
    private static Event follow(Stream<String> answer, Consumer<String> onLog) {
        Event last = new Event(null, null, null, null, null, null, null);
        try (answer) {
            for (Iterator<String> lines = answer.iterator(); lines.hasNext(); ) {
                Event event = GSON.fromJson(lines.next(), Event.class);
                if (event.log() != null) {
                    event.log().forEach(onLog);
                }
                last = event;
            }
        } catch (UncheckedIOException | JsonSyntaxException lost) {
            return last;
        }
        return last;
    }

    private static Event success(Event last) throws BuilderException {
        if ("success".equals(last.status())) {
            return last;
        }
        throw new BuilderException(last.error() == null
                ? "the builder was lost before the build's end"
                : "build failed: " + last.error());
    }

    // Sends a request with its proof. Without an answer, it is to be sent again.
    private Optional<HttpResponse<Stream<String>>> ask(
            String method, String target, String signature, BodyPublisher body, Map<String, String> headers)
            throws InterruptedException, BuilderException {
        Instant instant = Instant.now();
        String now = "%d.%06d".formatted(instant.getEpochSecond(), instant.getNano() / 1000);
        var request = HttpRequest.newBuilder(URI.create(url + target))
                .method(method, body)
                .header("X-Build-Signature", signature)
                .header("X-Build-Timestamp", now + " " + mac(now + " " + signature));
        headers.forEach(request::header);
        int seconds = 1;
        try {
            var reply = CLIENT.send(request.build(), BodyHandlers.ofLines());
            if (reply.statusCode() < 300) {
                return Optional.of(reply);
            }
            try (var text = reply.body()) {
                if (!Set.of(429, 502, 503, 504).contains(reply.statusCode())) {
                    throw new BuilderException("refused: " + reply.statusCode() + ": "
                            + text.collect(Collectors.joining("\n")));
                }
            }
            seconds = (int) reply.headers().firstValueAsLong("Retry-After").orElse(1);
        } catch (IOException lost) {
            // The connection was lost, or not made.
        }
        System.err.printf("the builder is away or busy: trying again in %d s%n", seconds);
        Thread.sleep(seconds * 1000L);
        return Optional.empty();
    }

    // A request's tar, in a temporary file: the configuration, and a directory as the build context.
    private static Path pack(Path directory, String image) throws IOException {
        Path file = Files.createTempFile("build-", ".tar");
        try (var paths = Files.walk(directory);
             var output = new BufferedOutputStream(Files.newOutputStream(file));
             var tar = new TarArchiveOutputStream(output, "UTF-8")) {
            tar.setLongFileMode(TarArchiveOutputStream.LONGFILE_POSIX);
            tar.setBigNumberMode(TarArchiveOutputStream.BIGNUMBER_POSIX);
            tar.setAddPaxHeadersForNonAsciiNames(true);
            byte[] config = GSON.toJson(Map.of("image", image)).getBytes(StandardCharsets.UTF_8);
            var first = new TarArchiveEntry("com.openfaas.docker.config");
            first.setSize(config.length);
            tar.putArchiveEntry(first);
            tar.write(config);
            tar.closeArchiveEntry();
            for (Iterator<Path> each = paths.iterator(); each.hasNext(); ) {
                Path path = each.next();
                add(tar, path, "context/" + directory.relativize(path));
            }
        }
        return file;
    }

    private static void add(TarArchiveOutputStream tar, Path path, String name) throws IOException {
        if (Files.isSymbolicLink(path)) {
            var link = new TarArchiveEntry(name, TarConstants.LF_SYMLINK);
            link.setLinkName(Files.readSymbolicLink(path).toString());
            tar.putArchiveEntry(link);
        } else {
            var entry = new TarArchiveEntry(path, name);
            // Windows has no modes.
            if (path.getFileSystem().supportedFileAttributeViews().contains("unix")) {
                entry.setMode((int) Files.getAttribute(path, "unix:mode", LinkOption.NOFOLLOW_LINKS));
            }
            tar.putArchiveEntry(entry);
            if (entry.isFile()) {
                Files.copy(path, tar);
            }
        }
        tar.closeArchiveEntry();
    }

    private String sign(Path file) throws IOException {
        Mac mac = hmac();
        try (var input = Files.newInputStream(file)) {
            byte[] piece = new byte[1 << 16];
            for (int size = input.read(piece); size >= 0; size = input.read(piece)) {
                mac.update(piece, 0, size);
            }
        }
        return "sha256=" + HexFormat.of().formatHex(mac.doFinal());
    }

    private String mac(String text) {
        return "sha256=" + HexFormat.of().formatHex(hmac().doFinal(text.getBytes(StandardCharsets.UTF_8)));
    }

    private Mac hmac() {
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(secret, "HmacSHA256"));
            return mac;
        } catch (GeneralSecurityException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        boolean build = arguments.length == 3 && arguments[0].equals("build");
        if (!build && !(arguments.length >= 2 && arguments.length <= 3 && arguments[0].equals("submit"))) {
            fail("usage: java FunctionBuilder.java build|submit DIR IMAGE, or java FunctionBuilder.java submit ID");
        }
        try {
            // Old versions of faas-cli want the URL with /build.
            String url = env("OPENFAAS_REMOTE_BUILDER", "http://127.0.0.1:8080").replaceFirst("(/build)?/?$", "");
            String secret = Files.readString(Path.of(env("OPENFAAS_PAYLOAD_SECRET", ".run/payload-secret")));
            var builder = new FunctionBuilder(url, secret.strip().getBytes(StandardCharsets.UTF_8));
            Event result;
            if (build) {
                result = builder.build(Path.of(arguments[1]), arguments[2], System.out::println);
            } else {
                String id = arguments[1];
                if (arguments.length == 3) {
                    id = builder.submit(Path.of(id), arguments[2], System.getenv("CALLBACK_URL"));
                    System.err.printf("build %s is queued%n", id);
                }
                result = builder.follow(id, System.out::println);
            }
            System.out.println(Stream.of(result.image(), result.digest())
                    .filter(Objects::nonNull).collect(Collectors.joining("@")));
        } catch (BuilderException error) {
            fail(error.getMessage());
        } catch (IOException error) {
            fail(error.toString());
        }
    }

    private static String env(String name, String otherwise) {
        return Optional.ofNullable(System.getenv(name)).filter(value -> !value.isEmpty()).orElse(otherwise);
    }

    private static void fail(String message) {
        System.err.println(message);
        System.exit(1);
    }
}
