import asyncio
import base64
import dataclasses
import io
import tarfile
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from function_builder.client import (
    AsyncClient,
    BuildConfig,
    BuildFailed,
    BuildOptions,
    BuildResult,
    BuildStatus,
    ClientError,
    ContextError,
    File,
    Files,
    Refused,
    Unreachable,
    seal_secrets,
)
from function_builder.contract.config import parse_config
from function_builder.contract.names import CONFIG_NAME
from function_builder.contract.secrets import SecretsKey
from function_builder.contract.timestamp import read_timestamp
from tests.support import free_address
from tests.support.servers import serving
from tests.unit.function_builder.scripted_builder import (
    SECRET,
    Answer,
    ScriptedBuilder,
    busy,
    last,
    progress,
    refusing,
    sign,
    streamed,
    whole,
)

CONFIG = BuildConfig(image="127.0.0.1:5000/hello:1")
LOG = ("v: 2025-06-13T20:16:16Z [1/2] FROM busybox", "l: 2025-06-13T20:16:16Z hello\u2028there")
BuilderThat = Callable[..., ScriptedBuilder]


async def follow(client: AsyncClient, directory: Path) -> tuple[list[str], BuildResult]:
    async with client.stream(directory, CONFIG) as build:
        log = [line async for progress in build for line in progress.log]
        return log, await build.result()


async def test_a_whole_answer(builder_that: BuilderThat, hello: Path) -> None:
    builder = builder_that(whole(status="success", image="i", log=LOG, duration=0.5, digest="d"))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        result = await client.build(hello, CONFIG)
    assert result == BuildResult(
        status=BuildStatus.SUCCESS, image="i", log=LOG, duration=0.5, digest="d"
    )
    with tarfile.open(fileobj=io.BytesIO(builder.bodies[0])) as archive:
        assert "context/Dockerfile" in archive.getnames()
    headers = builder.headers[0]
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-length"] == str(len(builder.bodies[0]))
    assert "transfer-encoding" not in headers
    signed = headers["x-build-signature"]
    timestamp = read_timestamp(headers["x-build-timestamp"], signed, [SECRET])
    assert timestamp is not None
    assert abs(timestamp.seconds - time.time()) < 60


async def test_every_attempt_has_a_timestamp_of_its_own(
    builder_that: BuilderThat, hello: Path
) -> None:
    builder = builder_that(busy(), whole(status="success", image="i"))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        await client.build(hello, CONFIG)
    first, second = (sent["x-build-timestamp"] for sent in builder.headers)
    assert first != second
    assert builder.headers[0]["x-build-signature"] == builder.headers[1]["x-build-signature"]


async def test_without_a_secret_nothing_is_signed(builder_that: BuilderThat, hello: Path) -> None:
    builder = builder_that(whole(status="success", image="i"))
    async with AsyncClient(builder.url) as client:
        with pytest.raises(Refused):
            await client.build(hello, CONFIG)
    assert not {"x-build-signature", "x-build-timestamp"} & builder.headers[0].keys()


async def test_a_failed_build_is_a_result(builder_that: BuilderThat, hello: Path) -> None:
    builder = builder_that(whole(500, status="failed", error="failed to solve: no", log=LOG))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        result = await client.build(hello, CONFIG)
    assert (result.status, result.error, result.log) == (
        BuildStatus.FAILED,
        "failed to solve: no",
        LOG,
    )


@pytest.mark.parametrize("cut", [1, 7, 10_000])
async def test_a_stream_cut_anywhere(builder_that: BuilderThat, hello: Path, cut: int) -> None:
    data = progress(LOG[0]) + progress() + progress(*LOG) + last("success", image="i", digest="d")
    builder = builder_that(streamed(data))
    builder.cut = cut
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        log, result = await follow(client, hello)
    assert log == [LOG[0], *LOG]
    assert result.status is BuildStatus.SUCCESS
    assert (result.image, result.digest, result.duration) == ("i", "d", 1.5)
    assert builder.headers[0]["accept"] == "application/x-ndjson"


async def test_a_result_is_had_without_reading_the_progress(
    builder_that: BuilderThat, hello: Path
) -> None:
    builder = builder_that(streamed(progress(*LOG), last("failed", error="no")))
    async with (
        AsyncClient(builder.url, payload_secret=SECRET) as client,
        client.stream(hello, CONFIG) as build,
    ):
        async for _ in build:
            break
        result = await build.result()
        assert [event async for event in build] == []
    assert (result.status, result.error) == (BuildStatus.FAILED, "no")


@pytest.mark.parametrize(
    ("chunks", "error"),
    [
        ([], "ended without saying"),
        ([progress(*LOG)], "ended without saying"),
        ([progress(), RuntimeError("broken")], "connection was lost"),
        ([progress(), last("success")[:20]], "not a build's progress"),
        ([b"\n"], "not a build's progress"),
        ([b"<html>\n", last("success")], "not a build's progress"),
        ([last("failure", error="another word")], "not a build's progress"),
        ([b"x" * (2 << 20)], "ended without saying"),
    ],
)
async def test_a_stream_without_a_good_end_is_a_failure(
    builder_that: BuilderThat, hello: Path, chunks, error: str
) -> None:
    builder = builder_that(streamed(*chunks))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        _, result = await follow(client, hello)
    assert result.status is BuildStatus.FAILED
    assert error in result.error


async def test_a_silent_stream_is_a_failure(builder_that: BuilderThat, hello: Path) -> None:
    async def for_ever() -> None:
        await asyncio.Event().wait()

    builder = builder_that(streamed(progress(*LOG), then=for_ever))
    # Time enough for the answer's beginning, which counts as well.
    async with AsyncClient(builder.url, payload_secret=SECRET, read_timeout=3) as client:
        _, result = await follow(client, hello)
    assert result.status is BuildStatus.FAILED
    assert "fell silent" in result.error


async def test_a_builder_that_does_not_stream_is_followed_all_the_same(
    builder_that: BuilderThat, hello: Path
) -> None:
    builder = builder_that(whole(500, status="failed", error="no", log=LOG))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        log, result = await follow(client, hello)
    assert log == list(LOG)
    assert (result.status, result.error) == (BuildStatus.FAILED, "no")


async def test_leaving_a_stream_hangs_up(builder_that: BuilderThat, hello: Path) -> None:
    builder: ScriptedBuilder

    async def until_abandoned() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            builder.abandoned.set()

    builder = builder_that(streamed(progress(*LOG), then=until_abandoned))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        async with client.stream(hello, CONFIG) as build:
            await anext(aiter(build))
        assert await asyncio.to_thread(builder.abandoned.wait, 60)
        assert (await build.result()).status is BuildStatus.FAILED


async def test_a_busy_builder_is_tried_again_when_it_says(
    builder_that: BuilderThat, hello: Path
) -> None:
    builder = builder_that(busy("1"), streamed(last("success", image="i")))
    waits: list[tuple[int, float]] = []

    def on_retry(refused: ClientError, delay: float) -> None:
        assert isinstance(refused, Refused)
        waits.append((refused.status, delay))

    async with AsyncClient(builder.url, payload_secret=SECRET, on_retry=on_retry) as client:
        began = time.monotonic()
        _, result = await follow(client, hello)
    assert result.status is BuildStatus.SUCCESS
    ((status, delay),) = waits
    assert status == 429
    # Retry-After is the least, and chance keeps clients apart.
    assert 1 <= delay <= 1.5
    assert time.monotonic() - began >= 1
    assert builder.bodies[0] == builder.bodies[1]


async def test_each_attempt_says_how_much_of_the_request_is_sent(
    builder_that: BuilderThat,
) -> None:
    builder = builder_that(busy("0"), streamed(last("success", image="i")))
    told: list[tuple[int, int]] = []
    files = {"Dockerfile": b"FROM scratch\n", "large": bytes(3 << 20)}
    async with AsyncClient(
        builder.url, payload_secret=SECRET, on_upload=lambda *sent: told.append(sent)
    ) as client:
        await client.build(files=files, image="i")
    size = len(builder.bodies[0])
    assert told == 2 * [(sent, size) for sent in (1 << 20, 2 << 20, 3 << 20, size)]


async def test_a_wait_for_a_slot_that_came_to_nothing_is_a_refusal(
    builder_that: BuilderThat, hello: Path
) -> None:
    words = "Concurrent request limit exceeded. Max concurrent requests: 1"
    builder = builder_that(streamed(progress(*LOG), last("failed", error=words)))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        async with client.stream(hello, CONFIG) as build:
            with pytest.raises(Refused, match=words) as caught:
                await build.result()
        assert caught.value.status == 429
        with pytest.raises(Refused, match=words):
            await follow(client, hello)


async def test_patience_is_bounded(builder_that: BuilderThat, hello: Path) -> None:
    builder = builder_that(busy("60"))
    async with AsyncClient(builder.url, payload_secret=SECRET, retry_timeout=59) as client:
        with pytest.raises(Refused, match="Concurrent request limit exceeded") as caught:
            await client.build(hello, CONFIG)
    assert (caught.value.status, caught.value.retry_after) == (429, 60)
    assert len(builder.bodies) == 1


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (refusing(400, "image is missing"), 400, "image is missing"),
        (refusing(503, "draining"), 503, "draining"),
        (refusing(307, "", location="http://there"), 307, "redirects to http://there: use that"),
        (whole(500, oops=True), 500, "not a Function Builder response"),
        (whole(200, oops=True), 200, "not a Function Builder response"),
        (whole(200, status="in_progress"), 200, None),
    ],
)
async def test_refusals(
    builder_that: BuilderThat, hello: Path, answer: Answer, status: int, words: str | None
) -> None:
    builder = builder_that(answer)
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        if words is None:
            assert (await client.build(hello, CONFIG)).status is BuildStatus.FAILED
            return
        with pytest.raises(Refused, match=words) as caught:
            await client.build(hello, CONFIG)
        with pytest.raises(Refused, match=words):
            await follow(client, hello)
    assert caught.value.status == status


async def test_a_wrong_secret_is_refused(builder_that: BuilderThat, hello: Path) -> None:
    builder = builder_that(whole(status="success"))
    for secret in (b"wrong", None):
        async with AsyncClient(builder.url, payload_secret=secret) as client:
            with pytest.raises(Refused, match="signature") as caught:
                await client.build(hello, CONFIG)
        assert caught.value.status == 401


async def test_nobody_listens(hello: Path) -> None:
    address = free_address()
    async with AsyncClient(f"http://{address}") as client:
        with pytest.raises(Unreachable, match=f"{address}/build: Connection refused"):
            await client.build(hello, CONFIG)


async def test_an_unknown_host(hello: Path) -> None:
    async with AsyncClient("http://host.invalid") as client:
        with pytest.raises(Unreachable, match=r"cannot connect to http://host.invalid/build: "):
            await client.build(hello, CONFIG)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """The address of what says this after a request's headers, and reads on until it is left."""
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.write_eof()
        with suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
        left.set()

    async with serving(serve) as address:
        yield f"http://{address}"
        await asyncio.wait_for(left.wait(), 60)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n"])
async def test_an_answer_that_is_no_http(hello: Path, answer: bytes) -> None:
    async with answering(answer) as url, AsyncClient(url) as client:
        with pytest.raises(Unreachable, match="closed the connection"):
            await client.build(hello, CONFIG)


async def test_a_refusal_sent_before_the_body_was_read_is_seen(hello: Path) -> None:
    (hello / "large").write_bytes(bytes(4 << 20))
    answer = b"HTTP/1.1 413 Too large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large"
    async with answering(answer) as url, AsyncClient(url) as client:
        with pytest.raises(Refused, match="too large"):
            await client.build(hello, CONFIG)


async def test_a_directory_that_cannot_be_sent_is_no_request(
    builder_that: BuilderThat, tmp_path: Path
) -> None:
    builder = builder_that(whole(status="success"))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        with pytest.raises(ContextError):
            await client.build(tmp_path, CONFIG)
    assert builder.bodies == []


async def test_a_proxy_does_not_stand_before_this_machine(
    builder_that: BuilderThat, hello: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    builder = builder_that(whole(status="success"))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        assert (await client.build(hello, CONFIG)).status is BuildStatus.SUCCESS


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://builder:8080", "http://builder:8080/build"),
        ("http://builder:8080/", "http://builder:8080/build"),
        ("https://builder/build", "https://builder/build"),
        ("http://gateway/function/pro-builder", "http://gateway/function/pro-builder"),
    ],
)
async def test_addresses(given: str, used: str) -> None:
    async with AsyncClient(given) as client:
        assert client.url == used


@pytest.mark.parametrize(
    "url",
    ["builder:8080", "ftp://builder", "http://", "", "http://[::1", "http://b:99999", "http://b:0"],
)
def test_no_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        AsyncClient(url)


async def test_keywords_are_the_configuration(builder_that: BuilderThat, hello: Path) -> None:
    builder = builder_that(whole(status="success"))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        await client.build(hello, image="a/b:1", build_args={"A": "b"}, platforms=["linux/386"])
        await client.build(hello, CONFIG, skip_push=True)
        with pytest.raises(TypeError, match="one of both"):
            await client.build(hello, files={"Dockerfile": ""}, image="a/b:1")
        with pytest.raises(TypeError, match="one of both"):
            await client.build(image="a/b:1")
    first, second = map(config_of, builder.bodies)
    assert first == BuildConfig(
        image="a/b:1", build_args={"A": "b"}, platforms=("linux/386",), skip_push=False
    )
    assert second == dataclasses.replace(CONFIG, skip_push=True)


def config_of(body: bytes) -> BuildConfig:
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        member = archive.extractfile(CONFIG_NAME)
        assert member is not None
        return parse_config(member.read())


def test_each_keyword_is_a_field_of_the_configuration() -> None:
    fields = {field.name for field in dataclasses.fields(BuildConfig)}
    assert BuildOptions.__annotations__.keys() <= fields


async def test_a_file_in_no_directory_may_have_a_mode(builder_that: BuilderThat) -> None:
    builder = builder_that(whole(status="success"))
    files: Files = {
        "Dockerfile": "FROM scratch\n",
        "run": File("#!/bin/sh\n", 0o755),
        "key": File(b"k", 0o600),
    }
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        await client.build(files=files, image="a/b:1")
    with tarfile.open(fileobj=io.BytesIO(builder.bodies[0])) as archive:
        modes = {member.name: member.mode for member in archive if "/" in member.name}
        script = archive.extractfile("context/run")
        assert script is not None
        assert script.read() == b"#!/bin/sh\n"
    assert modes == {"context/Dockerfile": 0o644, "context/key": 0o600, "context/run": 0o755}


async def test_a_context_may_be_in_no_directory(builder_that: BuilderThat) -> None:
    builder = builder_that(whole(status="success"))
    files: Files = {"sub/é": "é", "Dockerfile": b"FROM scratch\n", ".dockerignore": "sub\n"}
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        await client.build(files=files, image="a/b:1")
        with pytest.raises(ContextError, match="no Dockerfile"):
            await client.build(files={"a": ""}, image="a/b:1")
    with tarfile.open(fileobj=io.BytesIO(builder.bodies[0])) as archive:
        sent = {member.name: archive.extractfile(member) for member in archive}
        assert {name: file.read() for name, file in sent.items() if file} == {
            CONFIG_NAME: BuildConfig(image="a/b:1").to_json(),
            "context/.dockerignore": b"sub\n",
            "context/Dockerfile": b"FROM scratch\n",
            "context/sub/é": "é".encode(),
        }


async def test_a_failed_build_may_be_raised(builder_that: BuilderThat, hello: Path) -> None:
    builder = builder_that(whole(500, status="failed", error="no"), whole(status="success"))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        failed = await client.build(hello, CONFIG)
        with pytest.raises(BuildFailed, match=r"^no$") as caught:
            failed.raise_for_status()
        assert caught.value.result is failed
        succeeded = await client.build(hello, CONFIG)
        assert succeeded.raise_for_status() is succeeded


def answered(status: int, body: str, content_type: str = "text/html", **headers: str) -> Answer:
    async def answer(_: Request) -> Response:
        return Response(body, status, headers, content_type)

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answered(413, "<html>", server="nginx"), r"a proxy \(.*nginx\) .*client_max_body_size"),
        (answered(413, "too large", "text/plain"), r"a proxy .* answered \(too large\): it limits"),
        (answered(502, "<html>"), "a proxy .* answered: it has no good answer from the builder"),
        (answered(503, "no upstream", "text/plain"), r"\(no upstream\): it has no builder"),
        (answered(504, "<html>"), "proxy_read_timeout"),
        (answered(401, "<html>"), "credentials of its own"),
        (answered(404, "404 page not found", "text/plain"), "page not found .*check the URL"),
        (answered(404, "<html>"), r"\(404\): not a Function Builder response: check the URL"),
        (answered(400, "The plain HTTP request was sent to HTTPS port"), "use https://"),
        (answered(400, "Client sent an HTTP request to an HTTPS server."), "use https://"),
        (answered(400, "No required SSL certificate was sent"), "client certificate"),
        (answered(302, "", location="http://me:hunter2@there/"), "redirects to http://.*@there/"),
    ],
)
async def test_what_a_proxy_says_is_told_from_a_builder(
    builder_that: BuilderThat, hello: Path, answer: Answer, words: str
) -> None:
    builder = builder_that(answer)
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        with pytest.raises(Refused, match=words) as caught:
            await client.build(hello, CONFIG)
    assert not caught.value.from_builder
    assert str(caught.value).startswith("no build was started (")
    assert "hunter2" not in str(caught.value)


async def test_credentials_of_a_url_are_sent_and_never_shown(
    builder_that: BuilderThat, hello: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    builder = builder_that(whole(status="success"))
    given = builder.url.replace("//", "//ci:hunter%402@") + "/build?token=hunter2"
    async with AsyncClient(given, payload_secret=SECRET) as client:
        await client.build(hello, CONFIG)
        assert client.url == f"{builder.url}/build"
        assert "hunter" not in repr(client)
    basic = base64.b64encode(b"ci:hunter@2").decode()
    assert builder.headers[0]["authorization"] == f"Basic {basic}"
    assert "ci:" not in caplog.text
    async with AsyncClient(f"http://ci:hunter2@{free_address()}") as client:
        with pytest.raises(Unreachable) as caught:
            await client.build(hello, CONFIG)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url", ["ftp://ci:hunter2@builder", "http://ci:hunter2/x@builder:80", "http://ci:hunter2@[::1"]
)
def test_a_wrong_url_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="is not an address") as caught:
        AsyncClient(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_headers_are_sent_but_never_malformed_or_shown(
    builder_that: BuilderThat, hello: Path
) -> None:
    builder = builder_that(whole(status="success"))
    headers = {"X-Forwarded-User": "me", "User-Agent": "mine", "X-Build-Signature": "mine"}
    async with AsyncClient(builder.url, payload_secret=SECRET, headers=headers) as client:
        await client.build(hello, CONFIG)
    assert builder.headers[0]["x-forwarded-user"] == "me"
    assert builder.headers[0]["user-agent"] == "mine"
    for name, value in [("a b", "x"), ("", "x"), ("Token", "hunter2\r\nX: y"), ("T", "hunter2€")]:
        with pytest.raises(ValueError, match="cannot be sent") as caught:
            AsyncClient(builder.url, headers={name: value})
        assert "hunter2" not in str(caught.value)


async def test_a_proxy_is_named_without_its_password(
    hello: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = free_address()
    monkeypatch.setenv("http_proxy", f"http://me:hunter2@{proxy}")
    async with AsyncClient("http://builder.example") as client:
        with pytest.raises(Unreachable) as caught:
            await client.build(hello, CONFIG)
    assert str(caught.value) == (
        "cannot connect to http://builder.example/build through the proxy"
        f" http://***@{proxy}: Connection refused"
    )
    for wrong in ("http://me:hunter2/x@h:port", "ftp://me:hunter2@h", "socks5://me:hunter2@h"):
        monkeypatch.setenv("http_proxy", wrong)
        with pytest.raises(ValueError, match="HTTP_PROXY") as refused:
            AsyncClient("http://builder.example")
        assert "hunter2" not in "".join(traceback.format_exception(refused.value))


async def test_an_image_is_believed_only_if_the_payload_secret_signed_the_answer(
    builder_that: BuilderThat, hello: Path
) -> None:
    """Of a builder without TLS, unless the caller says that it signs none."""
    success = {"status": "success", "image": "i"}
    builder = builder_that(whole(**success), streamed(last(**success)), whole(**success))
    builder.signs = False
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        refused = await client.build(hello, CONFIG)
        assert (refused.status, refused.image) == (BuildStatus.FAILED, "")
        assert "did not sign the answer" in refused.error
        assert (await follow(client, hello))[1] == refused
    async with AsyncClient(
        builder.url, payload_secret=SECRET, require_signed_answers=False
    ) as client:
        assert (await client.build(hello, CONFIG)).status is BuildStatus.SUCCESS


@pytest.mark.parametrize("required", [True, False])
async def test_an_answer_changed_on_its_way_is_no_success(
    builder_that: BuilderThat, hello: Path, required: bool
) -> None:
    """Neither its digest nor an earlier line of the log; nor may it be that of another request."""
    recorded: list[Response] = []

    async def changed(request: Request) -> Response:
        response = await whole(status="success", digest="sha256:66")(request)
        sign(response, request)
        recorded.append(response)
        return Response(bytes(response.body).replace(b"66", b"77"), media_type="application/json")

    async def replayed(_: Request) -> Response:
        return Response(recorded[0].body, media_type="application/json")

    async def without_a_line(request: Request) -> Response:
        response = await streamed(progress("one"), progress("two"), last("success"))(request)
        assert isinstance(response, StreamingResponse)
        sign(response, request)
        data = b"".join([chunk async for chunk in response.body_iterator])  # type: ignore[misc]
        return Response(data.replace(progress("one"), b""), media_type="application/x-ndjson")

    builder = builder_that(changed, replayed, without_a_line)
    builder.signs = False
    async with AsyncClient(
        builder.url, payload_secret=SECRET, require_signed_answers=required
    ) as client:
        for result in (
            await client.build(hello, CONFIG),
            await client.build(hello, CONFIG),
            (await follow(client, hello))[1],
        ):
            assert (result.status, result.digest) == (BuildStatus.FAILED, "")
            assert "its signature is wrong" in result.error


async def test_secrets_are_sent_only_if_they_were_sealed_for_the_builders_key(
    builder_that: BuilderThat, hello: Path
) -> None:
    """By what the builder proves without TLS, or by a key that the caller has."""
    key, other = SecretsKey.generate(), SecretsKey.generate()
    builder = builder_that(whole(status="success"))
    builder.public_key = key.public
    good, bad = (seal_secrets({"token": "t"}, each.public) for each in (key, other))
    async with AsyncClient(builder.url, payload_secret=SECRET) as client:
        assert (await client.build(hello, CONFIG, secrets=good)).status is BuildStatus.SUCCESS
        with pytest.raises(ContextError, match="sealed for key"):
            await client.build(hello, CONFIG, secrets=bad)
        # Another server in the builder's place has another key, and cannot sign it.
        builder.public_key, builder.signs = other.public, False
        with pytest.raises(Refused, match="did not sign the public key"):
            await client.build(hello, CONFIG, secrets=bad)
        assert len(builder.bodies) == 1
    builder.public_key = ""
    async with AsyncClient(
        builder.url,
        payload_secret=SECRET,
        require_signed_answers=False,
        builder_public_key=key.public,
    ) as client:
        with pytest.raises(ContextError, match="sealed for key"):
            await client.build(hello, CONFIG, secrets=bad)
        assert (await client.build(hello, CONFIG, secrets=good)).status is BuildStatus.SUCCESS
