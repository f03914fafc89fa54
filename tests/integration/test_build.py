"""POST /build, by a builder in a process of its own, a real BuildKit and a real registry."""

import asyncio
import base64
import json
import socket
import tarfile
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from function_builder.contract.answer_signature import public_key_answer
from function_builder.contract.result import MAX_LINE_BYTES
from function_builder.contract.secrets import SecretsKey, seal
from tests.support import VECTORS, until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.images import pull
from tests.support.requests import SECRET, headers, make_tar

pytestmark = pytest.mark.integration


def post(
    builder: RunningBuilder,
    body: bytes,
    *,
    stream: bool = False,
    change: Mapping[str, str | None] | None = None,
) -> httpx2.Response:
    """Send a signed body with some headers changed; a header of None is left out."""
    changed = headers(body, stream=stream) | dict(change or {})
    sent = {name: value for name, value in changed.items() if value is not None}
    return httpx2.post(
        f"{builder.url}/build", content=body, headers=sent, timeout=110, verify=False
    )


def lines_of(answer) -> list[dict[str, Any]]:
    """A stream's objects, each line held to its bounds."""
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.content.endswith(b"\n")
    lines = answer.content.splitlines(keepends=True)
    assert all(len(line) <= MAX_LINE_BYTES for line in lines)
    objects = [json.loads(line) for line in lines]
    assert all(item["status"] == "in_progress" for item in objects[:-1])
    assert all("image" not in item for item in objects[:-1])
    assert "log" not in objects[-1]
    return objects


def log_of(objects: list[dict[str, Any]]) -> list[str]:
    return [line for item in objects for line in item.get("log", [])]


def recorded(name: str) -> tuple[bytes, dict[str, str]]:
    headers = json.loads((VECTORS / f"{name}.headers.json").read_text())["headers"]
    del headers["Host"]
    return (VECTORS / f"{name}.tar").read_bytes(), headers


@pytest.fixture
async def recorded_builder(fresh_buildkitd, tmp_path, registry):
    """A builder with the recorded requests' secrets and a BuildKit that has built nothing yet."""
    if registry != "127.0.0.1:5000":
        pytest.skip(f"the recorded requests push to 127.0.0.1:5000, and the registry is {registry}")
    daemon = await fresh_buildkitd()
    async with running_builder(
        tmp_path / "builder",
        daemon.address,
        build_secrets_private_key_path=str(VECTORS / "build-secrets.key"),
    ) as builder:
        secret = (VECTORS / "payload-secret").read_bytes()
        (builder.secrets / "payload-secret").write_bytes(secret)
        yield builder


def test_the_recorded_request_of_the_python_sdk_builds_and_pushes(recorded_builder):
    body, sent = recorded("openfaas-python-sdk-build")
    answer = httpx2.post(
        recorded_builder.url + "/build", content=body, headers=sent, timeout=110, verify=False
    )
    assert answer.json()["status"] == "success", answer.text
    image = pull("127.0.0.1:5000", "functions/sdkfn", "0.1.0")
    assert image.text("greeting") == "bonjour\n"
    assert image.files["home/app/run"].mode == 0o755


def test_the_recorded_publish_builds_and_pushes(recorded_builder):
    body, sent = recorded("faas-cli-publish")
    answer = httpx2.post(
        recorded_builder.url + "/build", content=body, headers=sent, timeout=110, verify=False
    )
    *_, last = objects = lines_of(answer)
    assert last["status"] == "success", (last, log_of(objects))
    assert last["image"] == "127.0.0.1:5000/functions/shfn:0.1.0"
    image = pull("127.0.0.1:5000", "functions/shfn", "0.1.0")
    assert image.digest == last["digest"]
    assert image.config["config"]["Cmd"] == ["/bin/sh", "index.sh"]
    assert "fprocess=/bin/sh index.sh" in image.config["config"]["Env"]
    assert image.config["architecture"] == "amd64"
    home = {path for path in image.files if path.startswith("home/app/")}
    assert home == {
        "home/app/index.sh",
        "home/app/greeting.txt",
        "home/app/function",
        "home/app/function/handler.sh",
        "home/app/function/lib",
        "home/app/function/lib/say.sh",
        # The .dockerignore names *.log, which is a pattern for the context's root alone.
        "home/app/function/debug.log",
    }
    assert image.text("home/app/greeting.txt") == "bonjour\n"
    assert image.files["home/app/function/handler.sh"].mode == 0o755
    assert image.files["home/app/function/lib/say.sh"].mode == 0o644
    # The target of a COPY is made by BuildKit; what is in it keeps the modes of the tar.
    assert image.files["home/app/function"].mode == 0o755
    with tarfile.open(VECTORS / "faas-cli-publish.tar") as archive:
        for name in ["index.sh", "function/handler.sh", "function/lib/say.sh"]:
            entry = archive.extractfile(f"context/{name}")
            assert entry is not None
            assert image.files[f"home/app/{name}"].content == entry.read()


def test_the_recorded_secrets_open_and_their_steps_run(recorded_builder):
    body, sent = recorded("faas-cli-build-secrets")
    answer = httpx2.post(
        recorded_builder.url + "/build", content=body, headers=sent, timeout=110, verify=False
    )
    *_, last = objects = lines_of(answer)
    assert last["status"] == "success", (last, log_of(objects))
    log = log_of(objects)
    # BuildKit is new, so that a step cannot have come from its cache: each ran, and took its time.
    runs = [line for line in log if "RUN --mount=type=secret" in line and line.endswith("s")]
    assert len(runs) == 2
    assert "tok-123" not in answer.text.replace("= tok-123", "")
    image = pull("127.0.0.1:5000", "functions/envfn", "latest")
    assert image.digest == last["digest"]
    assert image.text("app/nested/deep/naïve file.txt")
    long = "n" * 120
    assert image.files[f"app/nested/{long}.txt"].content == b"x" * 300
    assert image.files["app/data.txt"].mode == 0o755
    assert image.files["app/nested/deep"].mode == 0o755
    assert not any(
        b"tok-123" in file.content for path, file in image.files.items() if "app" not in path
    )


DOCKERFILE = "FROM busybox\nCOPY who /who\nRUN echo hello from a step\n"


def test_a_reply_is_whole_when_it_is_not_streamed(builder, registry):
    name = f"{registry}/contract/Whole:T1"
    body = make_tar({"Dockerfile": DOCKERFILE, "who": "whole"}, {"image": name})
    answer = post(builder, body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    reply = answer.json()
    assert reply["status"] == "success"
    assert reply["image"] == f"{registry}/contract/whole:T1"
    assert 0 < reply["duration"] < 110
    assert reply["buildId"] == answer.headers["x-build-id"]
    assert any(line.startswith("v: ") and "COPY who /who" in line for line in reply["log"])
    assert any(
        line.startswith("l: ") and line.endswith(" hello from a step") for line in reply["log"]
    )
    assert pull(registry, "contract/whole", "T1").digest == reply["digest"]


def test_the_path_may_end_in_a_slash(builder, registry):
    body = make_tar({"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "1"}, {"skipPush": True})
    answer = httpx2.post(
        f"{builder.url}/build/", content=body, headers=headers(body), timeout=60, verify=False
    )
    assert answer.status_code == 200


def test_without_a_push_nothing_is_in_the_registry(builder, registry):
    image = f"{registry}/contract/unpushed:x"
    body = make_tar({"Dockerfile": DOCKERFILE, "who": "me"}, {"image": image, "skipPush": True})
    reply = post(builder, body).json()
    assert reply["status"] == "success"
    tags = f"http://{registry}/v2/contract/unpushed/tags/list"
    assert httpx2.get(tags, timeout=60, verify=False).status_code == 404


@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_step_fails_the_build(builder, registry, stream):
    body = make_tar(
        {"Dockerfile": "FROM busybox\nRUN echo the last words; exit 7\n"},
        {"image": f"{registry}/contract/failing:x"},
    )
    answer = post(builder, body, stream=stream)
    if stream:
        *_, reply = objects = lines_of(answer)
        log = log_of(objects)
    else:
        assert answer.status_code == 500
        reply = answer.json()
        log = reply["log"]
    assert reply["status"] == "failed"
    assert reply["error"] == (
        'failed to solve: process "/bin/sh -c echo the last words; exit 7" '
        "did not complete successfully: exit code: 7"
    )
    assert any(line.endswith(" the last words") for line in log)


def test_an_error_names_no_path_of_buildkits_host(builder):
    body = make_tar(
        {"Dockerfile": "FROM busybox\nRUN mkdir -p /x/a/b\nCOPY d /x\n", "d/a": "a file"},
        {"skipPush": True},
    )
    reply = post(builder, body).json()
    assert reply["status"] == "failed"
    assert "cannot replace to directory /x/a with file" in reply["error"]


def test_build_args_reach_the_build_and_ours_cannot_be_overridden(builder, registry):
    dockerfile = """
FROM busybox
ARG GREETING=hello
ARG EMPTY=full
RUN --mount=type=cache,target=/cache echo "$GREETING,$EMPTY" > /greeting
"""
    config = {
        "image": f"{registry}/contract/args:x",
        "buildArgs": {"GREETING": 'hé "x"', "EMPTY": "", "BUILDKIT_CACHE_MOUNT_NS": "another"},
    }
    assert post(builder, make_tar({"Dockerfile": dockerfile}, config)).json()["status"] == "success"
    assert pull(registry, "contract/args", "x").text("greeting") == 'hé "x",\n'


def good() -> bytes:
    return make_tar({"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "1"}, {"skipPush": True})


@pytest.mark.parametrize(
    "header",
    [None, "", "sha1=" + "0" * 40, "sha256=" + "0" * 64, "sha256=zz"],
)
def test_401(builder, header):
    answer = post(builder, good(), change={"X-Build-Signature": header})
    assert answer.status_code == 401
    assert answer.json()["status"] == "failed"
    assert "X-Build-Signature" in answer.json()["error"]


def test_a_wrong_signature_is_all_that_a_stranger_hears_of(builder):
    for body in [b"", b"not a tar", b"\x1f\x8b" + bytes(100)]:
        assert post(builder, body, change={"X-Build-Signature": "sha256=00"}).status_code == 401


BASE = {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "1"}
SBOM = {"BUILDKIT_ATTEST_SBOM": "generator=evil/x"}


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 400, ""),
        (b"not a tar" * 200, 400, ""),
        (good()[:700], 400, ""),
        (b"\x1f\x8b" + bytes(2000), 415, "gzip"),
        (b"\x28\xb5\x2f\xfd" + bytes(2000), 415, "zstd"),
        (make_tar(BASE, None), 400, "com.openfaas.docker.config"),
        (make_tar(BASE, b"{"), 400, "JSON"),
        (make_tar(BASE, {}), 400, "image"),
        (make_tar(BASE, {"image": "a b"}), 400, "reference"),
        (make_tar({}, {"skipPush": True}), 400, "context"),
        (make_tar({"a": "1"}, {"skipPush": True}), 400, "Dockerfile"),
        (make_tar({**BASE, "../x": "1"}, {"skipPush": True}), 400, ".."),
        (make_tar({"Dockerfile": "# syntax=evil/x\nFROM y"}, {"skipPush": True}), 400, "evil/x"),
        (make_tar(BASE, {"skipPush": True}, secrets=b"version: v1"), 400, "no key"),
        (make_tar({"Dockerfile": "FROM y\n" + "#" * (1 << 20)}, {"skipPush": True}), 400, "larger"),
        (make_tar(BASE, {"skipPush": True, "buildArgs": SBOM}), 400, "generator"),
    ],
    ids=range(16),
)
def test_a_body_that_cannot_be_built_is_refused_with_a_reason(builder, body, status, word):
    for stream in (False, True):
        answer = post(builder, body, stream=stream)
        assert answer.status_code == status
        assert answer.json()["status"] == "failed"
        assert word in answer.json()["error"]
        assert "/tmp" not in answer.text
        assert "Traceback" not in answer.text


def test_a_compressed_body_is_refused_by_its_header(builder):
    assert post(builder, good(), change={"Content-Encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/build", 405), ("PUT", "/build", 405), ("GET", "/", 404), ("POST", "/x", 404)],
)
def test_other_methods_and_paths(builder, method, path, status):
    answer = httpx2.request(method, builder.url + path, timeout=60, verify=False)
    assert answer.status_code == status
    assert answer.json()["status"] == "failed"


async def test_probes_and_metrics(builder):
    for method in ("GET", "HEAD"):
        assert (
            httpx2.request(method, builder.url + "/healthz", timeout=60, verify=False).status_code
            == 200
        )
    assert builder.get("/ready").status_code == 200
    assert builder.get("/publickey").status_code == 404
    before = builder.requests(code="200")
    post(builder, good())
    await until(lambda: builder.requests(code="200") > before)
    scraped = builder.metrics()
    assert "http_request_duration_seconds_bucket" in scraped
    assert "http_requests_in_flight" in scraped
    assert "function_builder_buildkit_up 1.0" in scraped


async def test_limits_of_size_and_number(tmp_path, buildkitd, http):
    async with running_builder(
        tmp_path / "b", buildkitd, max_body_bytes="20KiB", max_context_entries="4"
    ) as builder:
        big = make_tar({**BASE, "big": bytes(30_000)}, {"skipPush": True})
        announced = await asyncio.to_thread(post, builder, big)
        assert announced.status_code == 413
        chunked = await http.post(f"{builder.url}/build", content=chunks(big), headers=headers(big))
        assert chunked.status_code == 413
        many = make_tar({**BASE, "b": "", "c": "", "d": ""}, {"skipPush": True})
        assert (await asyncio.to_thread(post, builder, many)).status_code == 413
        assert (await asyncio.to_thread(post, builder, good())).status_code == 200


async def chunks(body: bytes):
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


SLOW = "FROM busybox\nARG N\nRUN echo begun-$N; sleep 600\n"


def slow_body(name: str) -> bytes:
    return make_tar({"Dockerfile": SLOW}, {"skipPush": True, "buildArgs": {"N": name}})


async def begun(lines, marker: str) -> None:
    """Read a stream until a step has said that it runs."""
    async for line in lines:
        if f" {marker}" in line and '"l: ' in line:
            return
    raise AssertionError(f"the build ended before it said {marker}")


async def test_a_full_builder_says_429_and_a_client_that_leaves_frees_its_slot(tmp_path, buildkitd):
    async with (
        running_builder(tmp_path / "b", buildkitd, max_inflight="1") as builder,
        httpx2.AsyncClient(timeout=60, verify=False) as client,
    ):
        body = slow_body("full")
        async with client.stream(
            "POST", f"{builder.url}/build", content=body, headers=headers(body, stream=True)
        ) as stream:
            lines = stream.aiter_lines()  # held on to: its end would end the connection
            await begun(lines, "begun-full")
            answer = await client.post(f"{builder.url}/build", content=body, headers=headers(body))
            assert answer.status_code == 429
            assert answer.text == (
                "Concurrent request limit exceeded. Max concurrent requests: 1\n"
            )
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.headers["connection"] == "close"
            assert int(answer.headers["retry-after"]) > 0
            assert (await client.get(builder.url + "/ready")).status_code == 503
            await expect_continue_hears_429_before_it_sends(builder)
            await all_of_a_large_body_may_be_sent_first(builder)
        # The client has gone: its RUN ends, long before its sleep would.
        await until(lambda: builder.get("/ready").status_code == 200)
        assert (await asyncio.to_thread(post, builder, good())).status_code == 200
        assert "its client went away" in builder.log.read_text()


async def expect_continue_hears_429_before_it_sends(builder: RunningBuilder) -> None:
    host, port = builder.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    async with asyncio.timeout(60):
        assert await reader.readline() == b"HTTP/1.1 429 Too Many Requests\r\n"
        await reader.read()
    writer.close()
    await writer.wait_closed()


async def all_of_a_large_body_may_be_sent_first(builder: RunningBuilder) -> None:
    def send_then_read() -> bytes:
        host, port = builder.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            size = 100 << 20
            connection.sendall(
                b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
            )
            piece = bytes(1 << 20)
            for _ in range(size // len(piece)):
                connection.sendall(piece)
            return connection.recv(100)

    assert (await asyncio.to_thread(send_then_read)).startswith(b"HTTP/1.1 429 ")


async def test_a_request_that_is_slow_to_check_delays_no_other_request(tmp_path, buildkitd, http):
    secrets = b"".join(b"%x:\n" % number for number in range(130_000))
    body = make_tar({"Dockerfile": "FROM scratch\n"}, {"skipPush": True}, secrets=secrets)
    turns, heard = 3, 0
    async with running_builder(tmp_path / "b", buildkitd) as builder:
        for _ in range(turns):
            post = http.post(f"{builder.url}/build", content=body, headers=headers(body))
            answered = asyncio.create_task(post)
            while not answered.done():
                text = (await http.get(builder.metrics_url + "/metrics")).text
                # It has its slot while it is checked, which takes half a second at least.
                heard += "\nfunction_builder_slots_taken 1.0\n" in text
            assert (await answered).status_code == 400
    # If the event loop checked it, one question could be under way when that begins, and no other
    # would be heard before its end.
    assert heard > turns


async def test_a_client_that_was_told_to_go_on_sees_why_not_to(tmp_path, buildkitd):
    def send_then_read(url: str) -> bytes:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                b"POST /build HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            for _ in range(15):
                connection.sendall(b"100000\r\n%b\r\n" % bytes(1 << 20))
            connection.sendall(b"0\r\n\r\n")
            return connection.recv(100)

    async with running_builder(tmp_path / "b", buildkitd, max_body_bytes="10MiB") as builder:
        answer = await asyncio.to_thread(send_then_read, builder.url)
        assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_body_far_over_the_limit_may_be_sent_to_its_end_first(tmp_path, buildkitd):
    body = bytes(50 << 20)
    async with running_builder(tmp_path / "b", buildkitd, max_body_bytes="1MiB") as builder:
        host, port = builder.url.removeprefix("http://").split(":")

        def send_then_read() -> bytes:
            with socket.create_connection((host, int(port)), timeout=60) as connection:
                head = b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                connection.sendall(head % len(body) + body)
                return connection.recv(100)

        assert (await asyncio.to_thread(send_then_read)).startswith(b"HTTP/1.1 413 ")


async def test_an_upload_that_stalls_is_ended(tmp_path, buildkitd):
    async with running_builder(tmp_path / "b", buildkitd, upload_timeout="0.3") as builder:
        host, port = builder.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        async with asyncio.timeout(60):
            assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        writer.close()
        await writer.wait_closed()


async def test_a_build_that_takes_too_long_fails(tmp_path, buildkitd):
    async with running_builder(tmp_path / "b", buildkitd, build_timeout="2s") as builder:
        answer = await asyncio.to_thread(post, builder, slow_body("late"), stream=True)
        last = lines_of(answer)[-1]
        assert last["status"] == "failed"
        assert "build_timeout" in last["error"]


async def test_without_buildkit_503_and_unready(tmp_path, registry):
    absent = f"unix://{tmp_path}/absent.sock"
    async with running_builder(tmp_path / "b", absent, wait_for="/healthz") as builder:
        assert builder.get("/ready").status_code == 503
        for stream in (False, True):
            answer = await asyncio.to_thread(post, builder, good(), stream=stream)
            assert answer.status_code == 503
            assert answer.json()["status"] == "failed"
            assert str(tmp_path) not in answer.text


async def test_secrets_are_opened_and_masked(tmp_path, buildkitd):
    key = SecretsKey.generate()
    path = tmp_path / "key"
    path.write_text(base64.b64encode(bytes(key.private)).decode())
    async with running_builder(
        tmp_path / "b", buildkitd, build_secrets_private_key_path=str(path)
    ) as builder:
        told = builder.get("/publickey").json()
        assert told == {"key_id": key.key_id, "algorithm": "nacl/box", "public_key": key.public}
        proven = builder.get("/publickey?nonce=my-nonce").content
        assert public_key_answer(SECRET.encode(), "my-nonce").proves(proven)
        assert json.loads(proven).items() > told.items()
        assert builder.get("/publickey?nonce=%0A").status_code == 400
        body = make_tar(
            {
                "Dockerfile": "FROM busybox\n"
                "RUN --mount=type=secret,id=token,required=true cat /run/secrets/token; exit 3\n"
            },
            {"skipPush": True},
            secrets=seal({"token": b"canary-7f3a"}, told["public_key"]),
        )
        answer = await asyncio.to_thread(post, builder, body)
        assert answer.status_code == 500
        assert "exit code: 3" in answer.json()["error"]
        assert any(line.endswith(" ***") for line in answer.json()["log"])
        assert "canary-7f3a" not in answer.text
        assert "canary-7f3a" not in builder.log.read_text()
        # Rotated: the same request is refused now, and told why.
        path.write_text(base64.b64encode(bytes(SecretsKey.generate().private)).decode())
        answer = await asyncio.to_thread(post, builder, body)
        assert answer.status_code == 400
        assert key.key_id in answer.json()["error"]


async def test_payload_secrets_rotate_without_a_restart(tmp_path, buildkitd):
    async with running_builder(tmp_path / "b", buildkitd) as builder:
        assert (await asyncio.to_thread(post, builder, good())).status_code == 200
        (builder.secrets / "payload-secret").rename(builder.secrets / "payload-secret-previous")
        (builder.secrets / "payload-secret").write_text("another secret\n")
        assert (await asyncio.to_thread(post, builder, good())).status_code == 200
        (builder.secrets / "payload-secret-previous").unlink()
        assert (await asyncio.to_thread(post, builder, good())).status_code == 401


async def test_sigterm_lets_builds_end_and_says_so_to_those_that_cannot(tmp_path, buildkitd):
    async with (
        running_builder(tmp_path / "b", buildkitd, drain_timeout="1h") as builder,
        httpx2.AsyncClient(timeout=60, verify=False) as client,
    ):
        body = slow_body("drain")
        async with client.stream(
            "POST", f"{builder.url}/build", content=body, headers=headers(body, stream=True)
        ) as stream:
            lines = stream.aiter_lines()
            await begun(lines, "begun-drain")
            builder.terminate()
            await until(lambda: builder.get("/ready").status_code == 503)
            refused = await client.post(f"{builder.url}/build", content=body, headers=headers(body))
            assert refused.status_code == 503
            # The second signal ends what the first one lets run.
            builder.terminate()
            last = [json.loads(line) async for line in lines][-1]
        assert last["status"] == "failed"
        assert "shutting down" in last["error"]
        async with asyncio.timeout(60):
            assert await builder.process.wait() == 0


async def test_a_client_that_does_not_read_holds_no_slot_when_its_build_has_ended(
    tmp_path, buildkitd
):
    # JSON writes such a byte in six: 24 MB, and the buffers on the way hold 4 MB (tcp_wmem).
    output = "head -c 1000000 /dev/zero | tr '\\0' '\\1' | fold -w 5000"
    steps = "".join(f"RUN : {number}; {output}\n" for number in range(4))
    body = make_tar({"Dockerfile": f"FROM busybox\n{steps}"}, {"skipPush": True})
    async with running_builder(tmp_path / "b", buildkitd, max_inflight="1") as builder:
        address = builder.url.removeprefix("http://").split(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((address[0], int(address[1])))
            head = {**headers(body, stream=True), "Host": "a", "Content-Length": str(len(body))}
            lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
            client.sendall(f"POST /build HTTP/1.1\r\n{lines}\r\n".encode() + body)
            await until(lambda: "build ended" in builder.log.read_text())
            await builder.until_metric("slots_taken", 0)
            assert "\nhttp_requests_in_flight 1.0\n" in builder.metrics(), (
                "all of it fitted into buffers"
            )


async def upload_across_sigterm(builder: RunningBuilder, body: bytes, *, until_log_says: str):
    """Send a body of which the second part comes when the builder is that far on its way out."""
    going_on = asyncio.Event()

    async def pieces():
        yield body[:1000]
        await going_on.wait()
        yield body[1000:]

    async with httpx2.AsyncClient(timeout=60, verify=False) as client:
        sent = headers(body, stream=True)
        post = client.post(f"{builder.url}/build", content=pieces(), headers=sent)
        answered = asyncio.create_task(post)
        await builder.until_metric("uploads_in_progress", 1)
        builder.terminate()
        await until(lambda: until_log_says in builder.log.read_text())
        going_on.set()
        return await answered


async def test_an_upload_that_sigterm_interrupts_is_built_to_its_end(tmp_path, buildkitd):
    async with running_builder(tmp_path / "b", buildkitd, drain_timeout="60s") as builder:
        # Longer than the web server waits for answers of its own accord.
        dockerfile = "FROM busybox\nRUN sleep 8; echo late\n"
        body = make_tar({"Dockerfile": dockerfile}, {"skipPush": True})
        answer = await upload_across_sigterm(builder, body, until_log_says="draining")
        assert lines_of(answer)[-1]["status"] == "success"
        async with asyncio.timeout(60):
            assert await builder.process.wait() == 0


async def test_an_upload_that_outlives_the_drain_is_refused(tmp_path, buildkitd):
    async with running_builder(tmp_path / "b", buildkitd, drain_timeout="1s") as builder:
        answer = await upload_across_sigterm(builder, good(), until_log_says="no more builds start")
        assert answer.status_code == 503
        assert "shutting down" in answer.json()["error"]


def test_a_syntax_image_that_cannot_be_had_is_no_failure(builder, registry):
    dockerfile = "# syntax=docker/dockerfile:1.7-labs\nFROM busybox\nRUN echo built all the same\n"
    reply = post(builder, make_tar({"Dockerfile": dockerfile}, {"skipPush": True})).json()
    assert reply["status"] == "success", reply
    assert any("WARNING" in line and "built-in frontend" in line for line in reply["log"])
    assert any(line.endswith(" built all the same") for line in reply["log"])


def test_a_base_image_that_cannot_be_had_is_a_failure(builder, registry):
    dockerfile = "# syntax=docker/dockerfile:1\nFROM nowhere/nothing:x\n"
    reply = post(builder, make_tar({"Dockerfile": dockerfile}, {"skipPush": True})).json()
    assert reply["status"] == "failed"
    assert "nowhere/nothing:x" in reply["error"]
