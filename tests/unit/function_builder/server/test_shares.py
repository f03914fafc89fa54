"""Weighted fair shares of slot time, on a clock of the test's."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.server.shares import JUST_BEGUN_SECONDS, Shares

MOST_SECONDS = 50


class Builder:
    """Slots that are given out as `Shares` says; time goes from one end of a build to the next.

    Attributes:
        now: seconds.
        held: the slot seconds of each tenant.
    """

    def __init__(self, slots: int, weights: Mapping[str, int]) -> None:
        self.now = 0.0
        self.free = slots
        self.held: dict[str, float] = defaultdict(float)
        self.shares = Shares(weights.__getitem__, lambda: self.now)
        self._ends: list[tuple[float, int, str]] = []
        self._number = 0

    def begin(self, waiting: Sequence[str], seconds: float) -> str:
        tenant = self.shares.first(waiting)
        self.shares.begin(tenant)
        self.free -= 1
        self._number += 1
        heapq.heappush(self._ends, (self.now + seconds, self._number, tenant))
        return tenant

    def until_an_end(self) -> str:
        end, _, tenant = heapq.heappop(self._ends)
        passed, self.now = end - self.now, end
        for _, _, each in [*self._ends, (0, 0, tenant)]:
            self.held[each] += passed
        self.shares.end(tenant)
        self.free += 1
        return tenant

    def run(
        self, waiting: Callable[[], Sequence[str]], seconds: Callable[[str], float], builds: int
    ) -> list[str]:
        """Have as many builds begin, whenever a slot is free; who began them."""
        begun: list[str] = []
        while len(begun) < builds:
            while self.free and waiting() and len(begun) < builds:
                tenant = self.shares.first(waiting())
                begun.append(self.begin([tenant], seconds(tenant)))
            self.until_an_end()
        return begun


weights = st.lists(st.integers(1, 5), min_size=2, max_size=5).map(
    lambda values: {f"t{number}": value for number, value in enumerate(values)}
)
lengths = st.lists(st.integers(1, MOST_SECONDS), min_size=1, max_size=30)


@given(st.integers(1, 4), weights, lengths)
def test_who_always_waits_gets_its_weights_part_of_the_time(slots, weights, lengths):
    builder = Builder(slots, weights)
    tenants, seconds = list(weights), cycle(lengths)
    builder.run(lambda: tenants, lambda _: next(seconds), 300)
    virtual = [builder.held[tenant] / weight for tenant, weight in weights.items()]
    # Each may be ahead by what it was given at once, and has to hold to its end.
    assert max(virtual) - min(virtual) <= 2 * slots * (MOST_SECONDS + JUST_BEGUN_SECONDS)


@given(st.integers(1, 4), weights)
def test_who_waits_is_never_passed_over_for_long(slots, weights):
    """With builds of one length, the others begin no more than their weights' part meanwhile."""
    builder = Builder(slots, weights)
    tenants = list(weights)
    begun = builder.run(lambda: tenants, lambda _: 1, 400)
    for tenant in tenants:
        places = [-1, *(place for place, each in enumerate(begun) if each == tenant), len(begun)]
        assert max(b - a for a, b in pairwise(places)) <= 3 * slots * sum(weights.values())


@given(st.integers(1, 4), st.integers(1, 5), lengths, st.integers(1, 200))
def test_an_idle_share_is_lent_and_comes_back_with_the_next_end(slots, weight, lengths, before):
    """Whatever one has had before, and however much it has waiting."""
    builder = Builder(slots, {"noisy": weight, "new": 1})
    seconds = cycle(lengths)
    assert set(builder.run(lambda: ["noisy"], lambda _: next(seconds), before)) == {"noisy"}
    while builder.free:
        builder.begin(["noisy"], next(seconds))
    builder.until_an_end()
    assert builder.begin(["noisy", "new"], next(seconds)) == "new"


@given(st.integers(2, 4), lengths)
def test_time_that_was_not_wanted_is_not_owed(slots, lengths):
    """One that was away does not keep the slots from those that were there."""
    builder = Builder(slots, {"early": 1, "late": 1})
    seconds = cycle(lengths)
    builder.run(lambda: ["early"], lambda _: next(seconds), 200)
    builder.held.clear()
    builder.run(lambda: ["early", "late"], lambda _: next(seconds), 200)
    ahead = builder.held["late"] - builder.held["early"]
    assert ahead <= 2 * slots * (MOST_SECONDS + JUST_BEGUN_SECONDS)


def test_slots_that_are_free_together_go_to_several():
    builder = Builder(6, {"a": 2, "b": 1, "c": 1})
    begun = Counter(builder.begin(["c", "b", "a"], 10) for _ in range(6))
    assert begun["a"] >= 2
    assert min(begun.values()) >= 1


def test_equal_ones_are_served_in_the_order_in_which_they_came():
    builder = Builder(3, {"a": 1, "b": 1, "c": 1})
    assert [builder.begin(["b", "c", "a"], 1) for _ in range(3)] == ["b", "c", "a"]


@pytest.mark.parametrize("count", [1000])
def test_each_of_a_thousand_tenants_has_its_turn(count):
    names = [f"t{number}" for number in range(count)]
    builder = Builder(4, dict.fromkeys(names, 1))
    waiting = dict.fromkeys(names)

    def take(tenant: str) -> float:
        del waiting[tenant]
        return 1.0

    begun = builder.run(lambda: list(waiting), take, count)
    assert sorted(begun) == sorted(names)
