"""Usage and quotas in NATS: over all builders, and over their restarts."""

import asyncio
import time
from collections import Counter
from datetime import date

import pytest

from function_builder.contract.builds import new_id
from function_builder.contract.tenancy import Limits, OverLimit
from function_builder.contract.usage import Usage
from function_builder.engine import NatsServer
from function_builder.queue.access import Access
from function_builder.queue.builds import JetStreamBuilds
from function_builder.queue.clock import Clock
from function_builder.queue.heartbeats import Heartbeats
from function_builder.queue.inflight import StoredInflight
from function_builder.queue.jetstream import JetStream
from function_builder.queue.marks import StoredMarks
from function_builder.queue.port import Submission
from function_builder.queue.streams import BUILDER_SUBJECTS, BUILDERS, streams
from function_builder.queue.usage import StoredUsage
from function_builder.server.quotas import OverQuota, Quotas
from function_builder.store import Store
from tests.support import until
from tests.support.port_behavior import Body

pytestmark = pytest.mark.integration

DAY, NEXT = date(2026, 11, 29), date(2026, 11, 30)


@pytest.fixture
async def jetstream(tmp_path):
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        jetstream = JetStream(Access(url=server.url))
        await jetstream.connect()
        yield jetstream
        await jetstream.close()


async def test_each_process_counts_once_and_all_are_summed(jetstream):
    first, second = (StoredUsage(jetstream, owner, 1) for owner in ("a-1", "a-2"))
    for store in (first, second):
        await store.prepare()
    # The same numbers again, as after an answer that was lost.
    for _ in range(2):
        await first.write(DAY, "acme", Usage(Counter(success=2), 1.5, 100))
    await second.write(DAY, "acme", Usage(Counter(success=1, failed=1), 0.25, 10))
    await second.write(NEXT, "acme", Usage(Counter(lost=1), 0.0, 1))
    await second.write(NEXT, "zeta", Usage(Counter(), 0.0, 7))
    summed = Usage(Counter(success=3, failed=1), 1.75, 110)
    assert await first.read(DAY, DAY, "") == {(DAY, "acme"): summed}
    assert await first.read(DAY, NEXT, "zeta") == {(NEXT, "zeta"): Usage(Counter(), 0.0, 7)}
    assert len(await second.read(DAY, NEXT, "")) == 3


async def test_a_lost_builders_places_come_back(jetstream):
    lost, alive = ("a-1", "a-2")
    clock, heard = Clock(), list[tuple[str, int]]()
    stores = {}
    for owner in (lost, alive):
        beats = Heartbeats(jetstream, clock, owner=owner, lost_after=30)
        stores[owner] = StoredInflight(jetstream, beats, owner, 1)
    for stream in streams(1, 30):
        await jetstream.ensure_stream(stream)
    await stores[lost].watch(lambda *_: None)
    await stores[alive].watch(lambda *seen: heard.append(seen))

    async def claim(owner: str, wanted: int, least: int = 0) -> int:
        return await stores[owner].claim("acme", least=least, wanted=wanted, limit=3)

    taken = await asyncio.gather(claim(lost, 2), claim(alive, 2))
    assert sorted(taken) == [1, 2]
    await claim(alive, 0)
    # One that has begun is not taken back, whatever the limit is now.
    assert [await claim(lost, 2), await claim(alive, 2), await claim(alive, 2, 2)] == [2, 1, 2]
    assert await claim(alive, 0) == 0
    await until(lambda: heard[-1:] == [("acme", 2)])
    await jetstream.purge(BUILDERS, f"{BUILDER_SUBJECTS}.{lost}")
    assert await claim(alive, 3) == 3


async def test_an_hours_builds_are_those_of_all_builders(jetstream):
    builders = [Quotas(lambda _: Limits(builds_per_hour=5)) for _ in range(3)]
    for builder in builders:
        builder.marks = StoredMarks(jetstream, 1)
    taken = [builder.count("acme") for builder in builders for _ in range(4)]
    refused = [each for each in await asyncio.gather(*taken, return_exceptions=True) if each]
    assert len(refused) == 12 - 5
    assert {type(each) for each in refused} == {OverQuota}
    # A builder that was just started knows of them too.
    late = Quotas(lambda _: Limits(builds_per_hour=5))
    late.marks = StoredMarks(jetstream, 1)
    with pytest.raises(OverQuota):
        await late.count("acme")
    await late.count("zeta")


async def test_a_tenants_part_of_the_queue_is_bounded(jetstream, tmp_path):
    store = Store(f"file://{tmp_path}")
    limits = {"acme": 1}
    builds = JetStreamBuilds(
        jetstream,
        store,
        history=3600,
        owner="a",
        max_queued_of=lambda tenant: limits.get(tenant, 0),
    )
    await builds.prepare()

    async def submit(tenant: str) -> None:
        body = Body(b"a tar")
        await builds.submit(Submission(id=new_id(), tenant=tenant, created=time.time()), body)

    await submit("acme")
    with pytest.raises(OverLimit) as refused:
        await submit("acme")
    assert refused.value.status == 429
    assert refused.value.headers["RateLimit-Policy"] == '"max_queued";q=1'
    await submit("zeta")
    store.close()
