"""What each implementation of the queue's port must do; its tests inherit this class.

The fixture `builds` gives the port; nothing may take its jobs.
"""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest

from function_builder.contract.builds import BuildInfo, BuildState, new_id
from function_builder.contract.errors import Refusal
from function_builder.contract.result import BuildResult, BuildStatus
from function_builder.queue.port import Builds, Idempotency, Submission

TENANT = "default"
OTHER = "another"


_begun = time.time()
_later = itertools.count(1)


def _now() -> float:
    """A time that differs from those before by a millisecond at least: order is not finer."""
    return _begun + next(_later) / 500


class Body:
    """A Reader of bytes at hand."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


def submission(key: str = "", fingerprint: bytes = b"", repository: str = "r/f") -> Submission:
    now = _now()
    return Submission(
        id=new_id(now),
        tenant=TENANT,
        created=now,
        image=f"{repository}:1",
        repository=repository,
        requester="192.0.2.1",
        trust_domain="open",
        idempotency=Idempotency(key, fingerprint) if key else None,
    )


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


async def recorded(builds: Builds, log: list[str], *, succeeds: bool = True) -> BuildInfo:
    """A synchronous build that has ended."""
    now = _now()
    info = BuildInfo(
        id=new_id(now),
        state=BuildState.RUNNING,
        created=now,
        image="r/f:1",
        repository="r/f",
        attempt=1,
        asynchronous=False,
    )
    builds.record_start(TENANT, info)
    status = BuildStatus.SUCCESS if succeeds else BuildStatus.FAILED
    state = BuildState.SUCCESS if succeeds else BuildState.FAILED
    error = "" if succeeds else "no"
    ended = info.end(state, BuildResult(status=status, error=error, duration=0.5), time.time())
    builds.record_end(TENANT, ended, log)

    async def is_recorded() -> bool:
        found = await builds.get(TENANT, info.id)
        return found is not None and found.state.ended

    await eventually(is_recorded)
    return ended


async def read(builds: Builds, build_id: str, after: int = 0) -> tuple[list[int], list[str]]:
    """A whole log, with the numbers of its lines."""
    numbers: list[int] = []
    lines: list[str] = []
    async with asyncio.timeout(60), aclosing(builds.follow(TENANT, build_id, after=after)) as log:
        async for batch in log:
            numbers += range(batch.first, batch.first + len(batch.lines))
            lines += batch.lines
    return numbers, lines


class PortBehavior:
    async def test_a_submission_is_queued_and_found_by_its_tenant_alone(self, builds):
        sent = submission()
        info = await builds.submit(sent, Body(b"tar"))
        assert (info.id, info.state, info.image) == (sent.id, BuildState.QUEUED, sent.image)
        assert info.created == pytest.approx(sent.created, abs=0.001)
        found = await builds.get(TENANT, info.id)
        assert found is not None
        assert (found.id, found.state, found.requester) == (info.id, info.state, "192.0.2.1")
        assert found.asynchronous
        assert found.result is None
        for other, build_id in ((OTHER, info.id), (TENANT, new_id()), (TENANT, "../x *>")):
            assert await builds.get(other, build_id) is None
            assert await builds.cancel(other, build_id) is None
            assert await builds.retry(other, build_id) is None

    async def test_an_absent_builds_log_ends_at_once(self, builds):
        info = await recorded(builds, ["a"])
        async with asyncio.timeout(60):
            for tenant, build_id in ((OTHER, info.id), (TENANT, new_id())):
                assert [batch async for batch in builds.follow(tenant, build_id)] == []

    async def test_a_key_makes_two_submissions_one_build(self, builds):
        first = await builds.submit(submission("key", b"1"), Body(b"tar"))
        again = await builds.submit(submission("key", b"1"), Body(b"tar"))
        assert again.id == first.id
        with pytest.raises(Refusal) as refused:
            await builds.submit(submission("key", b"2"), Body(b"other"))
        assert refused.value.status == 422
        other = await builds.submit(submission("other * key/", b"1"), Body(b"tar"))
        assert other.id != first.id

    async def test_equal_requests_at_the_same_time_are_one_build(self, builds):
        sent = [submission("at once", b"1") for _ in range(5)]
        found = await asyncio.gather(*(builds.submit(each, Body(b"tar")) for each in sent))
        assert len({info.id for info in found}) == 1

    async def test_a_queued_build_is_cancelled_once(self, builds):
        info = await builds.submit(submission(), Body(b"tar"))
        for _ in range(2):
            cancelled = await builds.cancel(TENANT, info.id)
            assert cancelled is not None
            assert cancelled.state is BuildState.CANCELLED
        found = await builds.get(TENANT, info.id)
        assert found is not None
        assert found.result is not None
        assert (found.state, found.result.reason) == (BuildState.CANCELLED, "cancelled")
        assert found.position is None
        await read(builds, info.id)

    async def test_the_end_of_a_build_is_kept(self, builds):
        info = await recorded(builds, ["a"], succeeds=False)
        cancelled = await builds.cancel(TENANT, info.id)
        assert cancelled is not None
        assert cancelled.state is BuildState.FAILED
        assert cancelled.result is not None
        assert cancelled.result.error == "no"

    async def test_a_build_that_waits_cannot_be_retried_and_an_ended_one_once_for_each_key(
        self, builds
    ):
        info = await builds.submit(submission(), Body(b"tar"))
        with pytest.raises(Refusal) as refused:
            await builds.retry(TENANT, info.id)
        assert refused.value.status == 409
        await builds.cancel(TENANT, info.id)
        key = Idempotency("retry", info.id.encode())
        first = await builds.retry(TENANT, info.id, requester="192.0.2.2", idempotency=key)
        again = await builds.retry(TENANT, info.id, requester="192.0.2.2", idempotency=key)
        third = await builds.retry(TENANT, info.id)
        assert first is not None
        assert again is not None
        assert third is not None
        assert first.id == again.id
        assert len({info.id, first.id, third.id}) == 3
        assert (first.retry_of, first.image, first.requester) == (info.id, info.image, "192.0.2.2")

    async def test_a_synchronous_builds_body_is_not_kept(self, builds):
        info = await recorded(builds, ["a"])
        with pytest.raises(Refusal) as refused:
            await builds.retry(TENANT, info.id)
        assert refused.value.status == 410

    async def test_a_log_is_read_from_any_line(self, builds):
        log = [f"line {number} \u2028 \x00 é" for number in range(1, 501)]
        info = await recorded(builds, log)
        assert await read(builds, info.id) == (list(range(1, 501)), log)
        assert await read(builds, info.id, after=499) == ([500], log[499:])
        assert await read(builds, info.id, after=500) == ([], [])
        assert await read(builds, info.id, after=10**9) == ([], [])

    async def test_a_follower_that_goes_away_leaves_the_others(self, builds):
        info = await builds.submit(submission(), Body(b"tar"))
        following = asyncio.create_task(read(builds, info.id))
        leaving = asyncio.create_task(read(builds, info.id))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        await builds.cancel(TENANT, info.id)
        async with asyncio.timeout(60):
            await following

    async def test_pages_are_stable_while_builds_come(self, builds):
        ids = [(await builds.submit(submission(), Body(b"tar"))).id for _ in range(7)]
        first = await builds.list(TENANT, limit=3)
        await builds.submit(submission(), Body(b"tar"))
        second = await builds.list(TENANT, limit=3, cursor=first.cursor)
        third = await builds.list(TENANT, limit=3, cursor=second.cursor)
        pages = [first, second, third]
        assert [info.id for page in pages for info in page.builds] == ids[::-1]
        assert third.cursor == ""
        assert first.cursor.isascii()
        assert first.cursor.isprintable()

    async def test_a_list_is_of_one_tenant_and_of_what_is_asked_for(self, builds):
        waiting = await builds.submit(submission(), Body(b"tar"))
        other = await builds.submit(submission(repository="r/g"), Body(b"tar"))
        ended = await recorded(builds, ["a"])
        foreign = dataclasses.replace(submission(), tenant=OTHER)
        await builds.submit(foreign, Body(b"tar"))

        async def ids(**wanted) -> list[str]:
            return [info.id for info in (await builds.list(TENANT, **wanted)).builds]

        assert await ids() == [ended.id, other.id, waiting.id]
        assert await ids(states=[BuildState.QUEUED]) == [other.id, waiting.id]
        assert await ids(states=[BuildState.SUCCESS, BuildState.RUNNING]) == [ended.id]
        assert await ids(repository="r/g") == [other.id]
        assert await ids(repository="r") == []
        assert [info.id for info in (await builds.list(OTHER)).builds] == [foreign.id]

    @pytest.mark.parametrize("cursor", ["x", "é", "0" * 24, "../*"])
    async def test_a_cursor_that_is_none_is_refused(self, builds, cursor):
        with pytest.raises(Refusal) as refused:
            await builds.list(TENANT, cursor=cursor)
        assert refused.value.status == 400
