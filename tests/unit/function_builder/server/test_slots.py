"""Slots and the queue for them: taken, handed on and given back."""

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from function_builder.server.slots import Closed, NoSlot, Place, Slots


class Queue(RuleBasedStateMachine):
    """Whoever comes and goes, whenever: held to a list of those who are there, in their order."""

    @initialize(limit=st.integers(0, 3), max_queue=st.integers(0, 4))
    def open(self, limit: int, max_queue: int) -> None:
        self.slots = Slots(limit, max_queue)
        self.room = limit + max_queue if limit else 1000
        self.there: list[tuple[Place, ExitStack]] = []

    @rule()
    def come(self) -> None:
        held = ExitStack()
        if len(self.there) >= self.room:
            assert self.slots.full
            with pytest.raises(NoSlot):
                held.enter_context(self.slots.place())
        else:
            assert not self.slots.full
            self.there.append((held.enter_context(self.slots.place()), held))

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        _, held = self.there.pop(data.draw(st.integers(0, len(self.there) - 1)))
        held.close()

    @invariant()
    def the_first_have_the_slots_and_the_rest_stand_in_line(self) -> None:
        if not hasattr(self, "slots"):
            return
        limit = self.slots.limit or len(self.there)
        positions = [place.position for place, _ in self.there]
        slots, queue = positions[:limit], positions[limit:]
        assert slots == [0] * len(slots)
        assert queue == list(range(1, len(queue) + 1))
        assert (self.slots.taken, self.slots.waiting) == (len(slots), len(queue))
        assert self.slots.all_taken == (bool(self.slots.limit) and len(slots) == limit)


TestQueue = Queue.TestCase


def test_a_slot_comes_back_on_every_way_out():
    slots = Slots(1)

    def fail() -> None:
        with slots.place():
            assert slots.full
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert slots.taken == 0
    assert not slots.full


def test_a_refusal_has_pro_builders_words():
    slots = Slots(1)
    with slots.place(), pytest.raises(NoSlot) as refused, slots.place():
        pass
    assert refused.value.status == 429
    assert refused.value.reason == "Concurrent request limit exceeded. Max concurrent requests: 1"


async def seen(place: Place, positions: list[int]) -> str:
    """Follow a place to its end; how that was."""
    try:
        async for position in place.positions():
            positions += [position]
    except Closed:
        return "closed"
    return "slot"


@pytest.fixture
def queue():
    """One slot, and the stacks that hold it and the three places behind it."""
    slots = Slots(1, 3)
    with ExitStack() as all_of_them:
        stacks = [all_of_them.enter_context(ExitStack()) for _ in range(4)]
        yield slots, stacks, [stack.enter_context(slots.place()) for stack in stacks]


async def test_a_follower_sees_its_place_at_once_and_at_each_change(queue):
    _, stacks, places = queue
    positions: list[int] = []
    async with asyncio.timeout(60):
        follower = asyncio.create_task(seen(places[3], positions))
        for leaving in (1, 0, 2):
            await asyncio.sleep(0)
            stacks[leaving].close()
        assert await follower == "slot"
    assert positions == [3, 2, 1]


async def test_a_slow_follower_misses_what_was_in_between(queue):
    _, stacks, places = queue
    positions = places[3].positions()
    assert await anext(positions) == 3
    stacks[0].close()
    stacks[1].close()
    assert await anext(positions) == 1


async def test_whoever_has_a_slot_at_once_is_told_of_no_place(queue):
    _, _, places = queue
    positions: list[int] = []
    assert await seen(places[0], positions) == "slot"
    assert not positions


async def test_nobody_is_let_in_when_it_is_closed(queue):
    slots, stacks, places = queue
    async with asyncio.timeout(60):
        followers = [asyncio.create_task(seen(place, [])) for place in places[1:]]
        await asyncio.sleep(0)
        stacks[0].close()  # The first of the queue has the slot, and has not noticed.
        slots.close()
        assert await asyncio.gather(*followers) == ["closed"] * 3
