"""A tenant's `max_inflight` over several builders, with a store in memory that may be away."""

import asyncio
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self

import pytest

from function_builder.contract.tenancy import NO_LIMITS, Limits
from function_builder.queue.port import QueueUnavailable
from function_builder.server import inflight
from function_builder.server.inflight import SharedInflight
from function_builder.server.places import NoSlot, Place
from function_builder.server.slots import Slots

LIMITS = {"acme": Limits(max_inflight=2), "zeta": Limits(max_inflight=1)}


@dataclass
class Stored:
    """The parts of all builders."""

    parts: dict[str, dict[str, int]] = field(default_factory=dict)
    watching: dict[str, Callable[[str, int], None]] = field(default_factory=dict)
    away: bool = False
    asked: int = 0

    def others(self, tenant: str, owner: str) -> int:
        parts = self.parts.get(tenant, {})
        return sum(parts.values()) - parts.get(owner, 0)


class Store:
    """One builder's view."""

    def __init__(self, stored: Stored, owner: str) -> None:
        self._stored = stored
        self._owner = owner

    async def watch(self, changed: Callable[[str, int], None]) -> None:
        self._stored.watching[self._owner] = changed

    async def claim(self, tenant: str, *, least: int, wanted: int, limit: int) -> int:
        stored = self._stored
        stored.asked += 1
        await asyncio.sleep(0)
        if stored.away:
            raise QueueUnavailable
        others = stored.others(tenant, self._owner)
        own = max(least, min(wanted, limit - others))
        changed = stored.parts.setdefault(tenant, {}).get(self._owner, 0) != own
        stored.parts[tenant][self._owner] = own
        await asyncio.sleep(0)
        if changed:
            for owner, tell in stored.watching.items():
                tell(tenant, stored.others(tenant, owner))
        return own


class Fleet:
    """Builders that share a store, each with its own slots."""

    def __init__(self, number: int, *, slots: int = 4, max_queue: int = 0) -> None:
        self.stored = Stored()
        self.slots = [Slots(slots, max_queue, limits=self._limits) for _ in range(number)]
        self._tasks: list[asyncio.Task[None]] = []
        self.shared = [
            SharedInflight(each, self._limits, Store(self.stored, f"b{number}"))
            for number, each in enumerate(self.slots)
        ]

    @staticmethod
    def _limits(tenant: str) -> Limits:
        return LIMITS.get(tenant, NO_LIMITS)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(each.run()) for each in self.shared]
        for slots, shared in zip(self.slots, self.shared, strict=True):
            slots.shared = shared
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        for each in self.shared:
            await each.close()

    async def build(self, builder: int, tenant: str = "acme") -> ExitStack:
        """Begin a build that ends when the result is closed."""
        held = ExitStack()
        place = held.enter_context(self.slots[builder].place(tenant))
        try:
            await placed(place)
        except NoSlot:
            held.close()
            raise
        return held

    async def until_at_rest(self) -> None:
        """Wait until the store has what runs."""
        for each in self.shared:
            while tasks := [part.settling for part in each._parts.values() if part.settling]:
                await asyncio.wait(tasks)


async def placed(place: Place) -> None:
    async for _ in place.positions():
        pass


async def test_all_builders_together_have_one_limit():
    async with Fleet(2) as fleet:
        first, second = await fleet.build(0), await fleet.build(1)
        for builder in range(2):
            with pytest.raises(NoSlot) as refused:
                await fleet.build(builder)
            assert refused.value.headers["RateLimit"] == '"max_inflight";r=0'
            assert refused.value.reason.endswith("Max concurrent requests: 2")
        assert fleet.slots[1].taken == 1
        first.close()
        await fleet.until_at_rest()
        third = await fleet.build(1)
        second.close()
        third.close()
        await fleet.until_at_rest()
        assert fleet.stored.others("acme", "") == 0
        assert not any(each._parts for each in fleet.shared)


async def test_a_request_that_waits_begins_when_a_build_elsewhere_ends():
    async with Fleet(2, max_queue=1) as fleet:
        held = [await fleet.build(0), await fleet.build(0)]
        with fleet.slots[1].place("acme") as place, fleet.slots[1].turn("acme") as queued:
            waits = asyncio.create_task(placed(place))
            await fleet.until_at_rest()
            assert (place.position, fleet.slots[1].waiting) == (1, 1)
            # Others have the slots meanwhile.
            (await fleet.build(1, "zeta")).close()
            held.pop().close()
            await waits
            assert queued.position
            held.pop().close()
            await placed(queued)


async def test_builds_that_follow_each_other_ask_once_and_others_never():
    async with Fleet(1, slots=1, max_queue=9) as fleet:
        await fleet.build(0, "other")
        assert fleet.stored.asked == 0
    async with Fleet(1, slots=1, max_queue=9) as fleet:
        with ExitStack() as held:
            places = [held.enter_context(ExitStack()) for _ in range(3)]
            line = [each.enter_context(fleet.slots[0].place("acme")) for each in places]
            await placed(line[0])
            asked = fleet.stored.asked
            for before, place in zip(places, line[1:], strict=False):
                before.close()
                await placed(place)
            await fleet.until_at_rest()
            assert fleet.stored.asked == asked


async def test_without_the_store_each_builder_has_the_limit_until_it_is_back(monkeypatch):
    monkeypatch.setattr(inflight, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(inflight, "RETRY_SECONDS", 0.0)
    async with Fleet(2, max_queue=1) as fleet:
        held = [await fleet.build(0), await fleet.build(0)]
        with fleet.slots[1].place("acme") as place:
            await fleet.until_at_rest()
            assert place.position
            fleet.stored.away = True
            await placed(place)
            other = await fleet.build(1)
            while not all(each.alone for each in fleet.shared):
                await asyncio.sleep(0)
            fleet.stored.away = False
            while any(each.alone for each in fleet.shared):
                await asyncio.sleep(0)
            # Nothing is ended; the next one waits until there is room for it.
            assert fleet.stored.others("acme", "") == 4
            held.pop().close()
            held.pop().close()
        await fleet.until_at_rest()
        last = await fleet.build(0)
        other.close()
        last.close()


async def test_a_client_that_leaves_while_its_part_is_claimed_leaves_none():
    async with Fleet(1) as fleet:
        with fleet.slots[0].place("acme") as place:
            assert place.claiming
        await fleet.until_at_rest()
        assert (fleet.slots[0].taken, fleet.stored.others("acme", "")) == (0, 0)


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_comes_and_goes_the_limit_holds_and_no_build_waits_for_ever(
    seed, monkeypatch
):
    # A change of which no message tells would be found by a look alone.
    monkeypatch.setattr(inflight, "REFRESH_SECONDS", 3600.0)
    choice = random.Random(seed)
    async with Fleet(3, slots=2, max_queue=5) as fleet:
        running = {"acme": 0, "zeta": 0, "other": 0}

        async def build(slots: Slots, tenant: str) -> None:
            turn = choice.random() < 0.3
            try:
                with slots.turn(tenant) if turn else slots.place(tenant) as place:
                    if choice.random() < 0.2:
                        return
                    await placed(place)
                    running[tenant] += 1
                    limit = fleet._limits(tenant).max_inflight
                    assert not limit or running[tenant] <= limit
                    for _ in range(choice.randrange(9)):
                        await asyncio.sleep(0)
                    running[tenant] -= 1
            except NoSlot:
                pass

        async with asyncio.timeout(30), asyncio.TaskGroup() as builds:
            for _ in range(60):
                builds.create_task(build(choice.choice(fleet.slots), choice.choice([*running])))
                for _ in range(choice.randrange(4)):
                    await asyncio.sleep(0)
        await fleet.until_at_rest()
        assert [fleet.stored.others(tenant, "") for tenant in LIMITS] == [0, 0]
