"""The queue for build slots, from outside: who waits is told, who goes makes room."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

import httpx2
import pytest

from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

GOOD = make_tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}, {"skipPush": True})
BUSY = "Concurrent request limit exceeded. Max concurrent requests: 1"
PLACE = re.compile(r"^l: \S+Z Waiting for a build slot: place (\d+) in the queue\.$")


@pytest.fixture
def starting(tmp_path, buildkitd):
    """Starts a builder of one slot, with these settings."""
    return partial(running_builder, tmp_path / "b", buildkitd, max_inflight="1")


def post(http, builder: RunningBuilder, body: bytes = GOOD, *, stream: bool = False):
    return http.post(f"{builder.url}/build", content=body, headers=headers(body, stream=stream))


async def until_waiting(builder: RunningBuilder, number: int) -> None:
    await builder.until_metric("builds_waiting", number)


class Stream:
    """A streamed answer, line by line."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    @classmethod
    @asynccontextmanager
    async def of(cls, http, builder: RunningBuilder, body: bytes) -> AsyncIterator[Self]:
        sent = headers(body, stream=True)
        async with http.stream(
            "POST", f"{builder.url}/build", content=body, headers=sent
        ) as response:
            assert response.status_code == 200
            yield cls(response)

    async def next(self) -> dict[str, Any]:
        """The next line with something in it."""
        async with asyncio.timeout(60):
            while True:
                event: dict[str, Any] = json.loads(await anext(self._lines))
                if len(event) > 2 or event["status"] != "in_progress":
                    return event

    async def place(self) -> int:
        """The place that the next line tells, alone."""
        event = await self.next()
        (line,) = event["log"]
        told = PLACE.match(line)
        assert told, line
        assert event["status"] == "in_progress"
        return int(told[1])

    async def last(self) -> dict[str, Any]:
        """The last line."""
        while (event := await self.next())["status"] == "in_progress":
            pass
        with pytest.raises(StopAsyncIteration):
            await anext(self._lines)
        return event


async def test_who_waits_is_told_of_each_change_and_built_in_turn(starting, http, steps):
    async with starting(max_queue="2") as builder:
        first = asyncio.create_task(post(http, builder, steps.body("first")))
        await steps.reached("first")
        async with Stream.of(http, builder, steps.body("second")) as second:
            assert await second.place() == 1
            async with Stream.of(http, builder, steps.body("third")) as third:
                assert await third.place() == 2
                assert builder.metric("builds_waiting") == 2
                assert builder.metric("builds_in_progress") == 1

                refused = await post(http, builder)
                assert (refused.status_code, refused.text) == (429, BUSY + "\n")
                assert refused.headers["content-type"] == "text/plain; charset=utf-8"
                assert refused.headers["connection"] == "close"
                assert int(refused.headers["retry-after"]) > 0

                await steps.let("first")
                assert (await first).json()["status"] == "success"
                assert await third.place() == 1
                await steps.reached("second")
                assert builder.metric("builds_in_progress") == 1
                await steps.let("second")
                assert (await second.last())["status"] == "success"
                await steps.let("third")
                last = await third.last()
                assert last["status"] == "success"
                assert "log" not in last
        await until_waiting(builder, 0)
        assert builder.metric("slots_taken") == 0
        assert builder.metric('build_phase_duration_seconds_count{phase="wait"}') == 3
        log = builder.lines()
        assert [line["position"] for line in log if line["event"] == "build waits"] == [1, 2]
        # From the acceptance to the end: the wait is in it.
        waited = log[-1]["phases"]["wait"]
        assert last["duration"] > waited > 0


async def test_a_plain_request_just_waits(starting, http, steps):
    async with starting(max_queue="1") as builder:
        first = asyncio.create_task(post(http, builder, steps.body("first")))
        await steps.reached("first")
        second = asyncio.create_task(post(http, builder))
        await until_waiting(builder, 1)
        await steps.let("first")
        answer = await second
        assert (answer.status_code, answer.json()["status"]) == (200, "success")
        assert (await first).status_code == 200


async def test_who_goes_leaves_the_queue_at_once(starting, http, steps):
    async with starting(max_queue="3") as builder:
        first = asyncio.create_task(post(http, builder, steps.body("first")))
        await steps.reached("first")
        async with Stream.of(http, builder, GOOD) as leaver:
            assert await leaver.place() == 1
            plain = asyncio.create_task(post(http, builder))
            await until_waiting(builder, 2)
            async with Stream.of(http, builder, GOOD) as stayer:
                assert await stayer.place() == 3
                plain.cancel()
                assert await stayer.place() == 2
                await leaver.response.aclose()
                assert await stayer.place() == 1
                await steps.let("first")
                assert (await stayer.last())["status"] == "success"
        assert (await first).status_code == 200
        await builder.until_metric('builds_total{outcome="cancelled"}', 2)


async def test_what_is_wrong_is_refused_before_it_waits(starting, http, steps):
    async with starting(max_queue="1") as builder:
        first = asyncio.create_task(post(http, builder, steps.body("first")))
        await steps.reached("first")
        for body, status in [(make_tar({}, {"skipPush": True}), 400), (b"no tar" * 100, 400)]:
            assert (await post(http, builder, body, stream=True)).status_code == status
        unsigned = await http.post(f"{builder.url}/build", content=GOOD)
        assert unsigned.status_code == 401
        assert builder.metric("builds_waiting") == 0
        await steps.let("first")
        assert (await first).status_code == 200


async def test_an_upload_holds_no_place_before_it_is_proven(starting, http, steps):
    more = asyncio.Event()

    async def slowly():
        yield GOOD[:512]
        await more.wait()
        yield GOOD[512:]

    async with starting(max_queue="1") as builder:
        first = asyncio.create_task(post(http, builder, steps.body("first")))
        await steps.reached("first")
        sent = {**headers(GOOD), "Content-Length": str(len(GOOD))}
        slow = asyncio.create_task(
            http.post(f"{builder.url}/build", content=slowly(), headers=sent)
        )
        await builder.until_metric("uploads_in_progress", 1)
        assert builder.metric("builds_waiting") == 0
        async with Stream.of(http, builder, GOOD) as quick:
            assert await quick.place() == 1
            more.set()
            late = await slow
            assert (late.status_code, late.text) == (429, BUSY + "\n")
            await steps.let("first")
            assert (await quick.last())["status"] == "success"
        assert (await first).status_code == 200


async def test_the_wait_has_an_end(starting, http, steps):
    async with starting(max_queue="2", queue_timeout="1s") as builder:
        first = asyncio.create_task(post(http, builder, steps.body("first")))
        await steps.reached("first")
        plain = asyncio.create_task(post(http, builder))
        async with Stream.of(http, builder, GOOD) as stream:
            last = await stream.last()
        assert (last["status"], last["error"]) == ("failed", BUSY)
        assert last["duration"] >= 1
        answer = await plain
        assert (answer.status_code, answer.text) == (429, BUSY + "\n")
        assert answer.headers["connection"] == "close"
        assert int(answer.headers["retry-after"]) > 0
        assert builder.metric('refusals_total{reason="busy"}') == 2
        assert builder.metric("builds_waiting") == 0
        await steps.let("first")
        assert (await first).status_code == 200


async def test_at_the_end_who_waits_may_have_a_slot_and_is_told_if_not(starting, http, steps):
    async with (
        starting(max_queue="3", drain_timeout="60s") as builder,
        Stream.of(http, builder, steps.body("first")) as first,
    ):
        await steps.reached("first")
        second = asyncio.create_task(post(http, builder, steps.body("second")))
        await until_waiting(builder, 1)
        async with Stream.of(http, builder, GOOD) as third:
            assert await third.place() == 2
            fourth = asyncio.create_task(post(http, builder))
            await until_waiting(builder, 3)
            builder.terminate()
            await steps.let("first")
            assert (await first.last())["status"] == "success"
            await steps.reached("second")
            assert await third.place() == 1

            builder.terminate()  # the second signal: at once
            last = await third.last()
            assert (last["status"], last["error"]) == (
                "failed",
                "the builder is shutting down: try again",
            )
            answer = await fourth
            assert (answer.status_code, answer.json()["status"]) == (503, "failed")
            assert int(answer.headers["retry-after"]) > 0
            assert (await second).status_code == 500
        async with asyncio.timeout(60):
            assert await builder.process.wait() == 0


async def test_a_full_builder_may_stay_ready_and_speak_for_itself(starting, http, steps):
    async with starting(ready_when_full="true") as builder:
        first = asyncio.create_task(post(http, builder, steps.body("first")))
        await steps.reached("first")
        assert (await http.get(builder.url + "/ready")).status_code == 200
        assert (await post(http, builder)).status_code == 429
        await steps.let("first")
        assert (await first).status_code == 200
