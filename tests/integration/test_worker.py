"""The worker on a real nats-server, with slots as the server has them and no BuildKit."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import pytest

from function_builder.builds.build import Build, Outcome
from function_builder.builds.failures import Failure
from function_builder.contract.builds import BuildState
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import Reason
from function_builder.contract.reader import Bytes
from function_builder.engine import NatsServer
from function_builder.queue.access import Access
from function_builder.queue.builds import JetStreamBuilds
from function_builder.queue.jetstream import JetStream
from function_builder.queue.worker import Worker
from function_builder.server.places import Closed, Place
from function_builder.server.slots import Slots
from function_builder.store import Store
from tests.support.build_requests import build_request
from tests.support.port_behavior import OTHER, TENANT, eventually, submission

pytestmark = pytest.mark.integration


class Refusing:
    """A runner that refuses each build, once the test lets it."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.limits: dict[str, int] = {}
        self.go_on = asyncio.Event()
        self.begun: list[str] = []
        self.most = 0

    def ready(self) -> bool:
        return True

    def turn(self, tenant: str):
        return self.slots.turn(tenant)

    def max_inflight(self, tenant: str) -> int:
        return self.limits.get(tenant, 0)

    async def until_slot(self, place: Place) -> bool:
        try:
            async for _ in place.positions():
                pass
        except Closed:
            return False
        return True

    async def prepare(self, record, _body):
        self.begun.append(record.tenant)
        self.most = max(self.most, self.slots.taken)
        await self.go_on.wait()
        raise Refusal(400, "no")

    async def run(self, _build, _place):
        raise AssertionError

    def release(self, _build):
        raise AssertionError

    def note_redelivery(self):
        pass


@pytest.fixture
async def queue(tmp_path):
    """Makes builders of one queue: its port, and what runs its builds."""
    async with AsyncExitStack() as stack:
        log = tmp_path / "nats.log"
        server = await stack.enter_async_context(NatsServer(tmp_path / "nats", log=log))

        @asynccontextmanager
        async def builder(
            slots: Slots, kind: type[Refusing] = Refusing
        ) -> AsyncIterator[tuple[JetStreamBuilds, Refusing, Worker[Place]]]:
            jetstream = JetStream(Access(url=server.url))
            await jetstream.connect()
            store = Store((tmp_path / "store").as_uri())
            builds = JetStreamBuilds(jetstream, store, history=3600, owner=f"b{id(slots)}")
            await builds.prepare()
            runner = kind(slots)
            worker = Worker(builds, runner, keep_bodies=False)
            task = asyncio.create_task(worker.run())
            try:
                yield builds, runner, worker
            finally:
                runner.go_on.set()
                async with asyncio.timeout(60):
                    await worker.drain()
                task.cancel()
                await asyncio.wait([task])
                await jetstream.close()
                store.close()

        yield lambda *how: stack.enter_async_context(builder(*how))


async def submitted(builds, number, tenant=TENANT):
    sent = [dataclasses.replace(submission(), tenant=tenant) for _ in range(number)]
    for each in sent:
        await builds.submit(each, Bytes(b"tar"))
    return [each.id for each in sent]


async def until_ended(builds, ids, tenant=TENANT):
    async def ended() -> bool:
        found = await builds.records.of(tenant, ids)
        return all(each.record.info.state is BuildState.FAILED for each in found.values())

    await eventually(ended)


async def test_two_builders_share_the_jobs_and_no_slot_is_exceeded(queue):
    first, first_runner, _ = await queue(Slots(2))
    _, second_runner, _ = await queue(Slots(1))
    ids = await submitted(first, 12)

    async def all_slots_are_taken() -> bool:
        return len(first_runner.begun) == 2 and len(second_runner.begun) == 1

    await eventually(all_slots_are_taken)
    first_runner.go_on.set()
    second_runner.go_on.set()
    await until_ended(first, ids)
    assert len(first_runner.begun) + len(second_runner.begun) == 12
    assert (first_runner.most, second_runner.most) == (2, 1)


async def test_without_a_limit_some_queued_builds_run_and_the_others_wait(queue):
    slots = Slots(0, unlimited=3)
    builds, runner, _ = await queue(slots)
    ids = await submitted(builds, 7)

    async def three_run() -> bool:
        return len(runner.begun) == 3

    await eventually(three_run)
    with slots.place() as place:
        assert not place.position
    assert slots.taken == 3
    runner.go_on.set()
    await until_ended(builds, ids)
    assert runner.most == 3


async def test_a_queued_build_has_its_turn_where_requests_always_wait(queue):
    slots = Slots(1, 2)
    builds, runner, _ = await queue(slots)
    runner.go_on.set()
    requests: list[ExitStack] = []

    def come() -> None:
        held = ExitStack()
        held.enter_context(slots.place())
        requests.append(held)

    for _ in range(3):
        come()
    ids = await submitted(builds, 3)
    async with asyncio.timeout(60):
        while len(runner.begun) < 3:
            # The first of the requests ends, and the next one comes.
            requests.pop(0).close()
            while not slots.full:
                come()
            await asyncio.sleep(0.01)
    await until_ended(builds, ids)
    for held in requests:
        held.close()


async def test_a_builder_that_drains_leaves_the_line_and_its_jobs_to_others(queue):
    slots = Slots(1)
    builds, runner, worker = await queue(slots)
    with slots.place():
        ids = await submitted(builds, 2)
        async with asyncio.timeout(60):
            while not worker._in_line:
                await asyncio.sleep(0.01)
            await worker.drain()
    assert not runner.begun
    _, other, _ = await queue(Slots(1))
    other.go_on.set()
    await until_ended(builds, ids)
    assert len(other.begun) == 2


async def test_a_build_that_is_stopped_before_its_first_step_is_left_to_others(queue):
    draining: list[asyncio.Task[None]] = []
    released: list[Outcome] = []

    class Running(Refusing):
        async def prepare(self, record, _body):
            self.begun.append(record.tenant)
            # Its first step comes before that of the build.
            draining.append(asyncio.create_task(worker.drain()))
            return Build(build_request(), id=record.info.id)

        async def run(self, build, _place):
            try:
                await asyncio.Event().wait()
            finally:
                build.fail(
                    Outcome.CANCELLED,
                    Failure(error="no", reason=Reason.CANCELLED, retryable=True),
                )

        def release(self, build):
            released.append(build.outcome)

    builds, _, worker = await queue(Slots(1), Running)
    ids = await submitted(builds, 1)

    async def it_drains() -> bool:
        return bool(draining)

    await eventually(it_drains)
    async with asyncio.timeout(60):
        await draining[0]
    assert released == [Outcome.CANCELLED]
    _, other, _ = await queue(Slots(1))
    other.go_on.set()
    await until_ended(builds, ids)


async def test_a_tenant_with_many_builds_delays_no_other(queue):
    slots = Slots(1)
    builds, runner, _ = await queue(slots)
    many = await submitted(builds, 6)

    async def one_runs() -> bool:
        return bool(runner.begun)

    await eventually(one_runs)
    (few,) = await submitted(builds, 1, OTHER)

    async def both_stand_in_line() -> bool:
        return len(slots._lines) == 2

    await eventually(both_stand_in_line)
    runner.go_on.set()
    await until_ended(builds, many)
    await until_ended(builds, [few], OTHER)
    assert runner.begun.index(OTHER) <= 2


async def test_a_tenants_limit_holds_over_all_builders(queue):
    builds, runner, _ = await queue(Slots(2))
    other_builds, other, _ = await queue(Slots(2))
    runner.limits = other.limits = {TENANT: 1}
    ids = await submitted(builds, 4)
    (few,) = await submitted(other_builds, 1, OTHER)

    async def both_tenants_run() -> bool:
        return set(runner.begun + other.begun) == {TENANT, OTHER}

    await eventually(both_tenants_run)
    assert (runner.begun + other.begun).count(TENANT) == 1
    runner.go_on.set()
    other.go_on.set()
    await until_ended(builds, ids)
    await until_ended(builds, [few], OTHER)
    assert (runner.begun + other.begun).count(TENANT) == 4
