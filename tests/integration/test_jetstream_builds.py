"""The queue's port on a real nats-server, and a directory as its store."""

import asyncio
import time

import pytest

from function_builder.contract.builds import BuildInfo, BuildState, new_id
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import Reason
from function_builder.contract.reader import Bytes
from function_builder.contract.result import BuildResult, BuildStatus
from function_builder.engine import NatsServer
from function_builder.queue import claims
from function_builder.queue.access import Access
from function_builder.queue.builds import JetStreamBuilds, body_key
from function_builder.queue.connection import Unavailable
from function_builder.queue.jetstream import JetStream
from function_builder.queue.records import STREAM
from function_builder.queue.retention import Retention
from function_builder.queue.states import Record
from function_builder.queue.streams import JOB_SUBJECTS, JOBS, LOGS
from function_builder.store import Store
from tests.support.port_behavior import (
    TENANT,
    PortBehavior,
    eventually,
    read,
    recorded,
    submission,
)

pytestmark = pytest.mark.integration


@pytest.fixture
async def builds(tmp_path):
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        jetstream = JetStream(Access(url=server.url))
        await jetstream.connect()
        store = Store((tmp_path / "store").as_uri())
        port = JetStreamBuilds(jetstream, store, history=3600, owner="tests")
        await port.prepare()
        yield port
        await port.writer.close(5)
        await jetstream.close()
        store.close()


class TestJetStreamBuilds(PortBehavior):
    pass


async def stored(builds, prefix):
    return {each.key async for batch in builds.store.list(prefix) for each in batch}


async def test_bodies_and_logs_are_deleted_by_age_and_never_one_that_is_needed(builds):
    waiting = await builds.submit(submission(), Bytes(b"tar"))
    ended = await builds.submit(submission(), Bytes(b"tar"))
    await builds.cancel(TENANT, ended.id)
    synchronous = await recorded(builds, ["a line"])
    cut_off = new_id()
    await builds.store.put(body_key(TENANT, cut_off), Bytes(b"tar"))
    now = time.time()
    retention = Retention(builds, history=86400, keep_bodies=600, max_bytes=0)
    assert await retention.sweep(now) == 0
    assert await retention.sweep(now + 601) == 1
    assert await stored(builds, "bodies") == {
        body_key(TENANT, each) for each in (waiting.id, cut_off)
    }
    assert await retention.sweep(now + 3700) == 1
    assert await stored(builds, "logs") == {f"logs/{TENANT}/{synchronous.id}"}
    assert await retention.sweep(now + 90_000) == 1
    assert await stored(builds, "logs") == set()
    assert await stored(builds, "bodies") == {body_key(TENANT, waiting.id)}


async def test_the_oldest_are_deleted_where_the_store_has_too_much(builds):
    ids = []
    for _ in range(3):
        info = await builds.submit(submission(), Bytes(bytes(1000)))
        await builds.cancel(TENANT, info.id)
        ids.append(info.id)
    waiting = await builds.submit(submission(), Bytes(bytes(5000)))
    retention = Retention(builds, history=86400, keep_bodies=600, max_bytes=2000)
    assert await retention.sweep(time.time()) == 1
    assert await stored(builds, "bodies") == {
        body_key(TENANT, each) for each in (*ids[1:], waiting.id)
    }


async def test_a_thousand_builds_are_listed_page_by_page(builds):
    begun = time.time() - 3000
    ids = [new_id(begun + number / 4) for number in range(1000)]
    for start in range(0, len(ids), 100):
        infos = (
            BuildInfo(id=each, state=BuildState.QUEUED, created=begun)
            for each in ids[start : start + 100]
        )
        await asyncio.gather(
            *(builds.records.create(Record(info=info, tenant=TENANT)) for info in infos)
        )
    found = []
    cursor = ""
    while True:
        page = await builds.list(TENANT, limit=200, cursor=cursor)
        found += [info.id for info in page.builds]
        if not (cursor := page.cursor):
            break
    assert found == ids[::-1]


async def test_a_full_queue_refuses_before_anything_is_stored(builds):
    builds._max_queued = 2
    first = await builds.submit(submission("key", b"1"), Bytes(b"tar"))
    second = await builds.submit(submission(), Bytes(b"tar"))
    for full in (
        builds.submit(submission(), Bytes(b"tar")),
        builds.submit(submission("other", b"1"), Bytes(b"tar")),
    ):
        with pytest.raises(Refusal) as refused:
            await full
        assert refused.value.status == 429
        assert "max_queued" in refused.value.reason
    # A repetition is the build that is there.
    assert (await builds.submit(submission("key", b"1"), Bytes(b"tar"))).id == first.id
    assert await stored(builds, "bodies") == {body_key(TENANT, each.id) for each in (first, second)}
    await builds.cancel(TENANT, second.id)
    third = await builds.submit(submission(), Bytes(b"tar"))
    assert third.id not in (first.id, second.id)
    with pytest.raises(Refusal) as refused:
        await builds.retry(TENANT, second.id)
    assert refused.value.status == 429


async def test_a_key_whose_request_was_cut_off_behind_its_job_makes_no_second_build(
    builds, monkeypatch
):
    """A builder that is killed there has a job and no record."""
    monkeypatch.setattr(claims, "TAKE_OVER_SECONDS", 0.2)
    sent = submission("cut off", b"1")
    with monkeypatch.context() as cut:

        async def killed(_record):
            raise Unavailable("killed")

        cut.setattr(builds.records, "create", killed)
        with pytest.raises(Refusal):
            await builds.submit(sent, Bytes(b"tar"))
    again = await builds.submit(submission("cut off", b"1"), Bytes(b"tar"))
    assert again.id == sent.id
    assert [info.id for info in (await builds.list(TENANT)).builds] == [sent.id]
    jobs = await builds.jetstream.waiting(JOBS, f"{JOB_SUBJECTS}.*")
    assert list(jobs.values()) == [1]
    assert await stored(builds, "bodies") == {body_key(TENANT, sent.id)}


async def test_a_synchronous_build_that_ends_at_once_is_recorded_once(builds):
    info = await recorded(builds, ["a line"])
    await builds.writer.close(20)
    assert await builds.jetstream.bounds(STREAM) == (1, 1)
    assert await builds.jetstream.count(LOGS) == 0
    assert await read(builds, info.id) == ([1], ["a line"])


async def test_a_synchronous_build_that_was_taken_for_lost_does_not_end_again(builds):
    """Its builder was away from the queue for longer than others wait for it."""
    info = BuildInfo(id=new_id(), state=BuildState.RUNNING, created=time.time())
    builds.record_start(TENANT, info)

    async def is_recorded() -> bool:
        return await builds.records.get(TENANT, info.id) is not None

    await eventually(is_recorded)
    found = await builds.records.get(TENANT, info.id)
    lost = found.record.fail("the builder that ran it was lost", Reason.SERVICE, time.time())
    await builds.records.update(found._replace(record=lost))
    result = BuildResult(status=BuildStatus.SUCCESS)
    builds.record_end(TENANT, info.end(BuildState.SUCCESS, result, time.time()), ["a line"])
    await builds.writer.close(20)
    assert (await builds.get(TENANT, info.id)).state is BuildState.FAILED
    assert await stored(builds, "logs") == set()
