"""Slots and uploads: what is taken is given back, whichever way a request goes."""

import asyncio
import os
import select
import signal
import socket
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from function_builder.contract.timestamp import stamp
from function_builder.engine import BuildKitDaemon
from tests.support import until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import SECRET, headers, make_tar

pytestmark = pytest.mark.integration

SKIP = {"skipPush": True}
GOOD = make_tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}, SKIP)
FAILING = make_tar({"Dockerfile": "FROM busybox\nRUN exit 7\n"}, SKIP)
BROKEN = make_tar({"Dockerfile": "FRO\n"}, SKIP)
SLEEPING = make_tar({"Dockerfile": "FROM busybox\nRUN sleep 100\n"}, SKIP)
BUSY = "Concurrent request limit exceeded. Max concurrent requests: 1\n"


@pytest.fixture
def starting(tmp_path, buildkitd):
    """Starts a builder of one slot, with these settings."""
    return partial(running_builder, tmp_path / "b", buildkitd, max_inflight="1")


def post(http, builder: RunningBuilder, body: bytes = GOOD, *, stream: bool = False, **changes):
    sent = headers(body, stream=stream) | changes
    return http.post(f"{builder.url}/build", content=body, headers=sent)


async def holds_nothing(http, builder: RunningBuilder) -> None:
    """The one slot is free at this moment, and so is every upload's."""
    assert builder.metric("slots_taken") == 0
    assert builder.metric("uploads_in_progress") == 0
    assert (await http.get(builder.url + "/ready")).status_code == 200


async def is_free(http, builder: RunningBuilder) -> None:
    """It holds nothing, and builds."""
    await holds_nothing(http, builder)
    assert (await post(http, builder)).status_code == 200


def refusal(builder: RunningBuilder) -> dict[str, str]:
    """What the builder's log says of the one request that it refused."""
    (line,) = (line for line in builder.lines() if line["event"] == "build refused")
    return line


def connect(builder: RunningBuilder) -> socket.socket:
    host, port = builder.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def begin(builder: RunningBuilder, size: int, body: bytes = b"", **more: str) -> socket.socket:
    """Send a request's headers, and of its body what is given."""
    connection = connect(builder)
    lines = [f"{name}: {value}" for name, value in (headers(body) | more).items()]
    head = "\r\n".join(["POST /build HTTP/1.1", "Host: x", f"Content-Length: {size}", *lines])
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    return connection


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_slot_is_free_when_its_answer_is_read(starting, http, stream):
    async with starting(max_body_bytes="4MB") as builder:
        for body, changes, status in [
            (GOOD, {}, 200),
            (GOOD, {"X-Build-Signature": "sha256=" + "0" * 64}, 401),
            (b"not a tar" * 100, {}, 400),
            (BROKEN, {}, 500),
            (FAILING, {}, 500),
            (bytes(5_000_000), {}, 413),
        ]:
            answer = await post(http, builder, body, stream=stream, **changes)
            # A stream has its status in its last line.
            assert answer.status_code == (200 if stream and status == 500 else status)
            await is_free(http, builder)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_slot_is_free_when_a_build_was_over_its_time(starting, http, stream):
    async with starting(build_timeout="2s") as builder:
        answer = await post(http, builder, SLEEPING, stream=stream)
        assert answer.status_code == (200 if stream else 500)
        assert "build_timeout" in answer.text
        # Whether the next one is built in that time is the machine's affair.
        await holds_nothing(http, builder)


async def test_a_client_that_leaves_gives_back_what_it_holds(starting, http, steps):
    async with starting() as builder:
        with begin(builder, 1000, b"half"):
            await builder.until_metric("uploads_in_progress", 1)
        await builder.until_metric("uploads_in_progress", 0)
        await is_free(http, builder)

        body = steps.body("left")
        with begin(builder, len(body), body):
            await steps.reached("left")
            assert builder.metric("slots_taken") == 1
        await builder.until_metric("slots_taken", 0)
        await is_free(http, builder)


async def test_an_upload_that_stalls_gives_back_what_it_holds(starting, http):
    async with starting(upload_timeout="0.5s") as builder:
        with begin(builder, 1000, b"half") as connection:
            assert (await asyncio.to_thread(connection.recv, 100)).startswith(b"HTTP/1.1 408 ")
        await builder.until_metric("uploads_in_progress", 0)
        # Whether the next upload comes within that time is the machine's affair.
        await holds_nothing(http, builder)


async def test_readiness_follows_the_slots_and_a_full_builder_answers_429(starting, http, steps):
    async with starting() as builder:
        with begin(builder, len(GOOD), b"") as early:
            await builder.until_metric("uploads_in_progress", 1)
            building = asyncio.create_task(post(http, builder, steps.body("one")))
            await steps.reached("one")
            assert (await http.get(builder.url + "/ready")).status_code == 503
            assert (await http.get(builder.url + "/healthz")).status_code == 200

            at_sight = await post(http, builder)
            assert (at_sight.status_code, at_sight.text) == (429, BUSY)
            # Its signature is of nothing: a body is proven before anybody hears of slots.
            early.sendall(GOOD)
            assert (await asyncio.to_thread(early.recv, 100)).startswith(b"HTTP/1.1 401 ")

            await steps.let("one")
            assert (await building).status_code == 200
        await is_free(http, builder)


async def test_a_body_that_was_taken_while_a_slot_was_free_may_find_none(starting, http, steps):
    async with starting() as builder:
        more = asyncio.Event()

        async def slowly():
            yield GOOD[:512]
            await more.wait()
            yield GOOD[512:]

        sent = {**headers(GOOD), "Content-Length": str(len(GOOD))}
        upload = asyncio.create_task(
            http.post(f"{builder.url}/build", content=slowly(), headers=sent)
        )
        await builder.until_metric("uploads_in_progress", 1)
        building = asyncio.create_task(post(http, builder, steps.body("one")))
        await steps.reached("one")
        more.set()
        answer = await upload
        assert (answer.status_code, answer.text) == (429, BUSY)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["connection"] == "close"
        assert builder.metric("slots_taken") == 1
        await steps.let("one")
        assert (await building).status_code == 200
        await is_free(http, builder)


async def test_strangers_hold_no_slot_and_are_bounded(starting, http):
    """Uploads that nobody has vouched for: a build still finds its slot beside them."""

    def answered(strangers):
        return select.select(strangers, [], [], 0)[0]

    async with starting() as builder:
        strangers = [begin(builder, 1000, b"half") for _ in range(15)]
        await builder.until_metric("uploads_in_progress", 15)
        assert (await post(http, builder)).status_code == 200
        assert not answered(strangers)
        strangers += [begin(builder, 1000, b"half") for _ in range(4)]
        await until(lambda: len(answered(strangers)) == 3)
        assert builder.metric("uploads_in_progress") == 16
        for stranger in strangers:
            stranger.close()
        await builder.until_metric("uploads_in_progress", 0)
        await is_free(http, builder)


async def test_as_many_may_upload_at_once_as_the_queue_has_room_for(starting, http):
    async with starting(max_queue="100") as builder:
        uploads = [begin(builder, 1000, b"half") for _ in range(24)]
        await builder.until_metric("uploads_in_progress", 24)
        assert not select.select(uploads, [], [], 0)[0]
        for upload in uploads:
            upload.close()
        await builder.until_metric("uploads_in_progress", 0)
        await is_free(http, builder)


async def test_one_upload_too_many_is_told_the_limit_that_it_met(starting, http):
    async with starting(max_queue="100", max_uploads="2") as builder:
        assert builder.metric("uploads_limit") == 2
        uploads = [begin(builder, 1000, b"half") for _ in range(2)]
        await builder.until_metric("uploads_in_progress", 2)
        answer = await post(http, builder)
        assert answer.status_code == 200
        # The oldest of the uploads made room.
        told = (await asyncio.to_thread(uploads[0].recv, 10_000)).decode()
        assert told.startswith("HTTP/1.1 429 ")
        assert "retry-after: " in told.lower()
        assert told.endswith("Concurrent request limit exceeded. Max concurrent requests: 2\n")
        line = refusal(builder)
        assert (line["reason"], line["limit"], line["client"]) == (
            "busy",
            "max_uploads",
            "127.0.0.1",
        )
        for upload in uploads:
            upload.close()
        await builder.until_metric("uploads_in_progress", 0)


@pytest.mark.parametrize(("age", "kept"), [(0, True), (100, True), (1000, False)])
async def test_a_client_that_proves_itself_at_the_headers_keeps_its_place(starting, age, kept):
    signed = headers(b"half")["X-Build-Signature"]
    proof = stamp(SECRET.encode(), signed, time.time() - age)
    async with starting(max_uploads="1") as builder:
        proven = begin(builder, 1000, b"half", **{"X-Build-Timestamp": proof})
        await builder.until_metric("uploads_in_progress", 1)
        others = [begin(builder, 1000, b"half") for _ in range(3)]
        await until(
            lambda: len(select.select([proven, *others], [], [], 0)[0]) == (2 if kept else 3)
        )
        assert builder.metric("uploads_in_progress") == 1 + kept
        assert bool(select.select([proven], [], [], 0)[0]) is not kept
        for connection in [proven, *others]:
            connection.close()
        await builder.until_metric("uploads_in_progress", 0)


@pytest.mark.parametrize(
    ("trusted", "client"), [("", "127.0.0.1"), ("127.0.0.0/8,::1", "2001:db8::9")]
)
async def test_a_refusal_names_its_client(starting, http, trusted, client):
    async with starting(trusted_proxies=trusted) as builder:
        unsigned = {"X-Forwarded-For": "1.1.1.1, [2001:db8::9]:80"}
        answer = await http.post(f"{builder.url}/build", content=b"x", headers=unsigned)
        assert answer.status_code == 401
        assert refusal(builder)["client"] == client


async def test_a_buildkit_that_dies_frees_the_slot(fresh_buildkitd, tmp_path, http, steps):
    daemon = await fresh_buildkitd()
    async with running_builder(tmp_path / "b", daemon.address, max_inflight="1") as builder:
        building = asyncio.create_task(post(http, builder, steps.body("lost")))
        await steps.reached("lost")
        os.killpg(daemon.pid, signal.SIGKILL)
        answer = await building
        assert (answer.status_code, answer.json()["status"]) == (500, "failed")
        assert "BuildKit was lost" in answer.json()["error"]
        assert builder.metric("slots_taken") == 0


async def test_readiness_goes_with_buildkit_and_comes_back_with_it(
    engine_root, buildkit_config, tmp_path, http
):
    root = engine_root / "comes-and-goes"
    daemon = partial(BuildKitDaemon, root, config=buildkit_config, log=root.with_suffix(".log"))
    async with AsyncExitStack() as stack:
        async with daemon() as first:
            builder = await stack.enter_async_context(
                running_builder(tmp_path / "b", first.address, max_inflight="1")
            )
        await until(lambda: builder.get("/ready").status_code == 503)
        assert (await post(http, builder)).status_code == 503
        assert builder.metric("slots_taken") == 0
        await stack.enter_async_context(daemon())
        await until(lambda: builder.get("/ready").status_code == 200)
        await is_free(http, builder)


async def test_a_large_body_with_a_wrong_signature_costs_no_memory(starting, http):
    size, piece = 100 << 20, bytes(1 << 20)

    async def pieces():
        for _ in range(size // len(piece)):
            yield piece

    def peak(builder: RunningBuilder) -> int:
        """The most memory that the builder ever had, in bytes (proc(5): VmHWM)."""
        status = Path(f"/proc/{builder.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    async with starting() as builder:
        assert (await post(http, builder)).status_code == 200
        before = peak(builder)
        answer = await http.post(
            f"{builder.url}/build",
            content=pieces(),
            headers={"X-Build-Signature": "sha256=" + "0" * 64, "Content-Length": str(size)},
        )
        assert answer.status_code == 401
        assert peak(builder) - before < 16 << 20
        await is_free(http, builder)
