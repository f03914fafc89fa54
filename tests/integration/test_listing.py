"""Pages of builds: by the index, by the keys, and by both, all with the same builds."""

import asyncio
import dataclasses
import time

import pytest

from function_builder.contract.builds import BuildInfo, BuildState, new_id
from function_builder.engine import NatsServer
from function_builder.queue import listing
from function_builder.queue.access import Access
from function_builder.queue.jetstream import JetStream
from function_builder.queue.listing import Listing, Wanted
from function_builder.queue.records import STREAM, Found, Records
from function_builder.queue.states import Record
from tests.support.port_behavior import TENANT

pytestmark = pytest.mark.integration

HISTORY = 3600.0
NUMBER = 300


@pytest.fixture
async def jetstream(tmp_path):
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        jetstream = JetStream(Access(url=server.url))
        await jetstream.connect()
        await jetstream.ensure_stream(Records(jetstream, HISTORY).config(1))
        yield jetstream
        await jetstream.close()


async def create(records: Records, number: int, **more) -> list[Found]:
    begun = time.time() - 3000
    infos = [
        BuildInfo(
            id=new_id(begun + each / 10),
            state=BuildState.QUEUED,
            created=begun,
            repository=f"r/{each % 7}",
        )
        for each in range(number)
    ]
    made: list[Found] = []
    for start in range(0, number, 100):
        some = [Record(info=info, tenant=TENANT, **more) for info in infos[start : start + 100]]
        made += await asyncio.gather(*map(records.create, some))
    return made


async def all_pages(pages: Listing, *states, repository="", limit=90) -> list[str]:
    found: list[str] = []
    cursor = ""
    while True:
        page = await pages.page(TENANT, Wanted(states, repository, limit), cursor)
        assert len(page.records) <= limit
        found += [each.record.info.id for each in page.records]
        if not (cursor := page.cursor):
            return found


async def test_each_way_finds_the_same_builds(jetstream, monkeypatch):
    records = Records(jetstream, HISTORY)
    made = await create(records, NUMBER)
    ids = [each.record.info.id for each in made][::-1]
    of_three = [each for at, each in enumerate(reversed(ids)) if at % 7 == 3][::-1]
    for name, value in (
        ("MAX_READ", 10_000),  # the index has all
        ("MAX_READ", 250),  # it is complete after some pages
        ("MAX_READ", 0),  # there is none
        ("MAX_INDEXED", 100),  # it has the newest
    ):
        with monkeypatch.context() as bounds:
            bounds.setattr(listing, name, value)
            pages = Listing(jetstream, records, HISTORY)
            assert await all_pages(pages) == ids, (name, value)
            assert await all_pages(pages, repository="r/3") == of_three
            assert await all_pages(pages, repository="none") == []
            assert await all_pages(pages, BuildState.QUEUED, limit=200) == ids
            assert await all_pages(pages, BuildState.RUNNING) == []

    pages = Listing(jetstream, records, HISTORY)
    first = await pages.page(TENANT, Wanted((), "", 50), "")
    (late,) = await create(records, 1)
    # It is old by its id, and it was written after the index was read.
    second = await pages.page(TENANT, Wanted((), "", 50), first.cursor)
    shown = [each.record.info.id for page in (first, second) for each in page.records]
    assert shown == ids[:100]
    assert late.record.info.id in await all_pages(pages)

    changed = made[5]
    running = dataclasses.replace(changed.record, info=changed.record.start("b", 1.0).info)
    await records.update(changed._replace(record=running))
    assert await all_pages(pages, BuildState.RUNNING) == [changed.record.info.id]
    assert changed.record.info.id not in await all_pages(pages, BuildState.QUEUED)


async def test_records_that_are_gone_leave_the_index(jetstream, monkeypatch):
    records = Records(jetstream, HISTORY)
    monkeypatch.setattr(listing, "_EXPIRE_EVERY", -1)
    pages = Listing(jetstream, records, HISTORY)
    await create(records, 20)
    await all_pages(pages)
    followed = pages._followed[TENANT]
    # As `max_age` does: the oldest first.
    await jetstream.context.purge_stream(STREAM, keep=5)
    assert len(await all_pages(pages)) == 5
    assert len(followed.index) == 5
    await jetstream.context.purge_stream(STREAM)
    assert await all_pages(pages) == []
