"""The end of a builder under load: the contract's section on SIGTERM, sentence by sentence."""

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import httpx2
import pytest

from function_builder.contract.timestamp import stamp
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import SECRET, headers, make_tar

pytestmark = pytest.mark.integration

QUICK = make_tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}, {"skipPush": True})


@pytest.fixture
def starting(tmp_path, buildkitd):
    """Starts a builder with these settings."""
    return partial(running_builder, tmp_path / "b", buildkitd)


@asynccontextmanager
async def posts(http, builder: RunningBuilder, *, stream: bool, **bodies: bytes):
    """Send requests at once; their answers by name, as tasks."""
    async with AsyncExitStack() as stack:
        tasks = {}
        for name, body in bodies.items():
            sent = post(http, builder, body, stream=stream)
            tasks[name] = asyncio.create_task(sent, name=name)
            stack.callback(tasks[name].cancel)
        yield tasks


def post(http, builder: RunningBuilder, body: bytes, *, stream: bool = False):
    return http.post(f"{builder.url}/build", content=body, headers=headers(body, stream=stream))


def last_of(answer) -> dict[str, Any]:
    """The last line of a stream, which is whole."""
    assert answer.status_code == 200
    assert answer.content.endswith(b"\n")
    last: dict[str, Any] = json.loads(answer.content.splitlines()[-1])
    assert "log" not in last
    return last


async def until_refused(http, builder: RunningBuilder):
    """Ask for builds until one is refused; how many were built before."""
    async with asyncio.timeout(60):
        built = 0
        while (answer := await post(http, builder, QUICK)).status_code == 200:
            built += 1
    return built, answer


async def test_builds_end_within_their_time_and_those_over_it_are_told(starting, http, steps):
    loop = asyncio.get_running_loop()
    ended = ("stream-1", "stream-2", "whole-1")
    late = ("stream-3", "stream-4", "whole-2")
    # Within the delay something has to be built, and within the time after it three builds end.
    timing = {"drain_delay": "10s", "drain_timeout": "20s"}
    bodies = {name: steps.body(name) for name in ended + late}
    streams = {name: body for name, body in bodies.items() if name.startswith("stream")}
    wholes = {name: body for name, body in bodies.items() if name.startswith("whole")}
    async with (
        starting(**timing) as builder,
        posts(http, builder, stream=True, **streams) as streaming,
        posts(http, builder, stream=False, **wholes) as waiting,
    ):
        await steps.reached(*bodies)
        begun = loop.time()
        builder.terminate()
        async with asyncio.timeout(60):
            while (ready := await http.get(builder.url + "/ready")).status_code == 200:
                pass
        assert "shutting down" in ready.text

        built, refused = await until_refused(http, builder)
        assert built >= 1
        assert loop.time() - begun >= 10
        assert (refused.status_code, refused.json()["status"]) == (503, "failed")
        assert int(refused.headers["retry-after"]) > 0
        assert (await http.get(builder.url + "/healthz")).status_code == 200

        await steps.let(*ended)
        for name in ("stream-1", "stream-2"):
            assert last_of(await streaming[name])["status"] == "success"
        whole = await waiting["whole-1"]
        assert (whole.status_code, whole.json()["status"]) == (200, "success")
        assert not any(task.done() for task in (streaming["stream-3"], waiting["whole-2"]))

        for name in ("stream-3", "stream-4"):
            last = last_of(await streaming[name])
            assert last["status"] == "failed"
            assert last["error"].startswith("the build was cancelled: the builder is shutting down")
        assert loop.time() - begun >= 30
        whole = await waiting["whole-2"]
        assert (whole.status_code, whole.json()["status"]) == (500, "failed")
        assert "the builder is shutting down" in whole.json()["error"]
        async with asyncio.timeout(60):
            assert await builder.process.wait() == 0
    with pytest.raises(httpx2.ConnectError):
        await http.get(builder.url + "/healthz")


@pytest.mark.parametrize(("drain_delay", "second"), [("60s", signal.SIGTERM), ("0", signal.SIGINT)])
async def test_a_second_signal_cancels_at_once(starting, http, steps, drain_delay, second):
    async with (
        starting(drain_delay=drain_delay, drain_timeout="60s") as builder,
        posts(http, builder, stream=True, a=steps.body("a"), b=steps.body("b")) as streaming,
        posts(http, builder, stream=False, c=steps.body("c")) as waiting,
    ):
        await steps.reached("a", "b", "c")
        builder.terminate()
        async with asyncio.timeout(60):
            # Not on a connection that is kept: the builder may close it as idle while it is asked.
            once = {"Connection": "close"}
            while (await http.get(builder.url + "/ready", headers=once)).status_code == 200:
                pass
            builder.process.send_signal(second)
            assert await builder.process.wait() == 0
            for task in streaming.values():
                assert "shutting down" in last_of(await task)["error"]
            assert (await waiting["c"]).status_code == 500


async def test_an_upload_that_was_taken_is_built_while_others_are_refused(starting, http):
    """No build was running when the delay ended; the process must not end under the upload."""
    more = asyncio.Event()

    async def slowly():
        yield QUICK[:512]
        await more.wait()
        yield QUICK[512:]

    sent = {**headers(QUICK, stream=True), "Content-Length": str(len(QUICK))}
    secret, signed = SECRET.encode(), sent["X-Build-Signature"]
    sent["X-Build-Timestamp"] = stamp(secret, signed, time.time())
    async with starting(drain_delay="1s") as builder:
        upload = asyncio.create_task(
            http.post(f"{builder.url}/build", content=slowly(), headers=sent)
        )
        await builder.until_metric("uploads_in_progress", 1)
        builder.terminate()
        await until_refused(http, builder)
        more.set()
        assert last_of(await upload)["status"] == "success"
        async with asyncio.timeout(60):
            assert await builder.process.wait() == 0


async def test_a_body_that_is_not_proven_does_not_hold_the_end(starting):
    async with starting(drain_timeout="1h") as builder:
        host, port = builder.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nA")
        await builder.until_metric("uploads_in_progress", 1)
        builder.terminate()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
        async with asyncio.timeout(60):
            assert await builder.process.wait() == 0
        writer.close()


async def test_an_idle_builder_ends_as_soon_as_its_delay_is_over(starting, http):
    loop = asyncio.get_running_loop()
    async with starting(drain_delay="1s", drain_timeout="1h") as builder:
        await http.get(builder.url + "/healthz")  # and its connection stays open
        begun = loop.time()
        builder.terminate()
        async with asyncio.timeout(60):
            assert await builder.process.wait() == 0
    assert loop.time() - begun >= 1
    # Nor did the web server wait for the connection: it would say that its own time was over.
    assert not [line for line in builder.lines() if line["level"] == "error"]
