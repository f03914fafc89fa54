"""Slots and the queue for them: taken, handed on and given back."""

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from function_builder.contract.tenancy import NO_LIMITS, Limits
from function_builder.server.places import Closed, NoSlot, Place
from function_builder.server.slots import Slots


class Queue(RuleBasedStateMachine):
    """Requests and queued builds come and go, held to a list of them in their order."""

    @initialize(limit=st.integers(0, 3), max_queue=st.integers(0, 4), unlimited=st.integers(1, 3))
    def open(self, limit: int, max_queue: int, unlimited: int) -> None:
        self.slots = Slots(limit, max_queue, unlimited=unlimited)
        self.max_queue, self.unlimited = max_queue, unlimited
        self.there: list[tuple[Place, ExitStack]] = []

    @property
    def expected(self) -> tuple[list[Place], list[Place]]:
        """Those that have a slot, and those in line."""
        have: list[Place] = []
        line: list[Place] = []
        for place, _ in self.there:
            if self.slots.limit:
                free = len(have) < self.slots.limit
            else:
                free = not place.queued or sum(each.queued for each in have) < self.unlimited
            (have if free else line).append(place)
        return have, line

    @rule()
    def come(self) -> None:
        held = ExitStack()
        have, line = self.expected
        requests = sum(not place.queued for place in line)
        if self.slots.limit and len(have) == self.slots.limit and requests >= self.max_queue:
            assert self.slots.full
            with pytest.raises(NoSlot):
                held.enter_context(self.slots.place())
        else:
            assert not self.slots.full
            self.there.append((held.enter_context(self.slots.place()), held))

    @rule()
    def take_a_turn(self) -> None:
        held = ExitStack()
        self.there.append((held.enter_context(self.slots.turn()), held))

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        _, held = self.there.pop(data.draw(st.integers(0, len(self.there) - 1)))
        held.close()

    @invariant()
    def the_first_have_the_slots_and_the_rest_stand_in_line(self) -> None:
        if not hasattr(self, "slots"):
            return
        have, line = self.expected
        assert [place.position for place in have] == [0] * len(have)
        assert [place.position for place in line] == list(range(1, len(line) + 1))
        assert self.slots.taken == len(have)
        assert self.slots.waiting == sum(not place.queued for place in line)
        assert self.slots.all_taken == (bool(self.slots.limit) and len(have) == self.slots.limit)


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


def test_queued_builds_have_their_turn_where_requests_always_wait():
    """`max_queue` is full of requests all the time, and one tenant has builds without end."""
    slots = Slots(1, 3)
    requests: list[tuple[Place, ExitStack]] = []

    def come() -> None:
        held = ExitStack()
        requests.append((held.enter_context(slots.place()), held))

    for _ in range(4):
        come()
    for _ in range(2):
        with slots.turn() as turn:
            assert slots.full
            served = 0
            while turn.position:
                requests.pop(0)[1].close()
                served += 1
                if turn.position:
                    come()
            assert served == 4
            assert all(place.position for place, _ in requests)
        come()


class Line:
    """Slots of tenants, and what they hold."""

    def __init__(self, limit: int, max_queue: int, **limits: Limits) -> None:
        self.now = 0.0
        self.slots = Slots(
            limit,
            max_queue,
            limits=lambda tenant: limits.get(tenant, NO_LIMITS),
            clock=lambda: self.now,
        )
        self.held: dict[Place, ExitStack] = {}

    def come(self, tenant: str, *, queued: bool = False) -> Place:
        held = ExitStack()
        turn = self.slots.turn if queued else self.slots.place
        place = held.enter_context(turn(tenant))
        self.held[place] = held
        return place

    def leave(self, place: Place, seconds: float = 1) -> None:
        self.now += seconds
        self.held.pop(place).close()


@pytest.mark.parametrize("queued", [False, True])
def test_a_noisy_tenant_delays_anothers_first_build_by_one_builds_end(queued):
    line = Line(4, 1000)
    noisy = [line.come("noisy") for _ in range(1000)]
    quiet = line.come("quiet", queued=queued)
    assert quiet.position == 1
    line.leave(noisy[2])
    assert quiet.position == 0
    # The noisy one has the slot again, as nobody else wants it.
    line.leave(quiet)
    assert noisy[4].position == 0


def test_positions_count_a_tenants_own_requests():
    line = Line(1, 10)
    first = line.come("a")
    places = [line.come(tenant) for tenant in ("a", "b", "a", "b")]
    assert [place.position for place in places] == [1, 1, 2, 2]
    line.leave(first)
    assert [place.position for place in places] == [1, 0, 2, 1]


def test_a_tenants_own_limit_leaves_slots_to_others():
    line = Line(4, 10, a=Limits(max_inflight=2))
    mine = [line.come("a") for _ in range(4)]
    assert [place.position for place in mine] == [0, 0, 1, 2]
    assert line.come("b").position == 0
    assert line.slots.taken == 3
    line.leave(mine[0])
    assert mine[2].position == 0


def test_a_tenants_own_queue_has_its_limit():
    line = Line(1, 10, a=Limits(max_queue=1), b=Limits(max_queue=0, max_inflight=3))
    line.come("a")
    line.come("a")
    for tenant, limit in (("a", 1), ("b", 3)):
        with pytest.raises(NoSlot, match=f"requests: {limit}$"):
            line.come(tenant)
    assert line.come("c").position == 1


async def test_a_full_line_has_room_for_a_tenant_that_has_less_in_it():
    line = Line(1, 3)
    noisy = [line.come("noisy") for _ in range(4)]
    with pytest.raises(NoSlot):
        line.come("noisy")
    last = asyncio.create_task(seen(noisy[3], []))
    await asyncio.sleep(0)
    quiet = line.come("quiet")
    async with asyncio.timeout(60):
        with pytest.raises(NoSlot):
            await last
    line.leave(noisy[3])
    assert line.slots.waiting == 3
    # Nor does one displace more than would be left to the other.
    with pytest.raises(NoSlot):
        line.come("quiet")
    line.leave(noisy[0])
    assert quiet.position == 0
    for place in (quiet, *noisy[1:3]):
        line.leave(place)
    assert line.slots.taken == 0


def test_weights_divide_full_slots():
    line = Line(3, 100, heavy=Limits(weight=2))
    places = {tenant: [line.come(tenant) for _ in range(40)] for tenant in ("heavy", "light")}
    for _ in range(20):
        for running in [place for place in line.held if not place.position]:
            line.leave(running)
    left = {tenant: sum(place in line.held for place in all_) for tenant, all_ in places.items()}
    assert 40 - left["heavy"] > 1.6 * (40 - left["light"])
