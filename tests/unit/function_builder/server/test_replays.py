"""What was taken is not taken again, whatever the clock does and however much there is."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from function_builder.contract.errors import Refusal
from function_builder.contract.signature import sign
from function_builder.contract.timestamp import stamp
from function_builder.server.replays import Replays

SECRET = b"key"
WINDOW = 300
NOW = 1_785_000_000.0


class Builder:
    """Takes requests, by a clock that the test sets."""

    def __init__(self, most: int = 20_000) -> None:
        self.now = NOW
        self.replays = Replays(WINDOW, most=most, clock=lambda: self.now)

    def claim(self, held: ExitStack, signed: float, body: bytes = b""):
        signature = sign(SECRET, body)
        header = stamp(SECRET, signature, signed)
        return held.enter_context(self.replays.claim(header, signature, [SECRET]))

    def takes(self, signed: float, body: bytes = b"") -> str:
        """Send a request that was signed then; why it is refused, or nothing."""
        with ExitStack() as held:
            try:
                self.replays.remember(self.claim(held, signed, body))
            except Refusal as refusal:
                return refusal.reason
        return ""


def test_a_request_is_taken_once():
    builder = Builder()
    assert builder.takes(NOW) == ""
    assert "already accepted" in builder.takes(NOW)
    assert builder.takes(NOW, b"other body") == ""
    assert builder.takes(NOW + 0.001) == ""


@pytest.mark.parametrize(
    ("off", "reason"),
    [
        (-WINDOW - 2, "302 s behind the builder's clock, and may be 300 s"),
        (-WINDOW, ""),
        (WINDOW, ""),
        (WINDOW + 2, "302 s ahead of the builder's clock, and may be 300 s"),
    ],
)
def test_a_request_is_signed_within_the_window(off, reason):
    refused = Builder().takes(NOW + off)
    assert reason in refused
    assert bool(reason) is bool(refused)


@pytest.mark.parametrize("header", [None, "", "1785000000", "1785000000 sha256=" + "0" * 64])
def test_a_request_without_a_timestamp_is_told_how_to_make_one(header):
    with pytest.raises(Refusal, match=r"replay_window.*unix seconds, a space, sha256=") as refused:
        ExitStack().enter_context(Builder().replays.claim(header, sign(SECRET, b""), [SECRET]))
    assert refused.value.status == 401


def test_a_twin_is_refused_while_the_first_is_on_its_way():
    builder = Builder()
    with ExitStack() as held:
        builder.claim(held, NOW)
        assert "already accepted" in builder.takes(NOW)


def test_a_request_that_was_not_taken_may_come_again():
    builder = Builder()
    with ExitStack() as held:
        builder.claim(held, NOW)
    assert builder.takes(NOW) == ""


def test_bodies_may_arrive_long_after_their_window_and_in_any_order():
    builder = Builder()
    with ExitStack() as held:
        slow, slower = builder.claim(held, NOW), builder.claim(held, NOW - 1)
        builder.now += 10 * WINDOW
        builder.replays.remember(slow)
        builder.replays.remember(slower)
    for signed in (NOW, NOW - 1):
        assert "behind" in builder.takes(signed)


def test_a_clock_that_is_set_back_makes_nothing_new():
    builder = Builder()
    assert builder.takes(NOW) == ""
    builder.now += 2 * WINDOW
    assert builder.takes(builder.now) == ""
    builder.now = NOW
    assert "older than what this builder remembers" in builder.takes(NOW)
    assert builder.takes(NOW + 1) == ""


def test_more_than_it_remembers_narrows_the_window_and_lets_no_replay_in():
    builder = Builder(most=10)
    signed = [NOW + number / 10 for number in range(30)]
    assert [builder.takes(each) for each in signed] == [""] * 30
    assert all(builder.takes(each) for each in signed)
    assert "older than" in builder.takes(NOW + 1.85)
    assert builder.takes(NOW + 2.95) == ""


class AnyOrder(RuleBasedStateMachine):
    """Requests of any time, sent any number of times, under any clock."""

    def __init__(self) -> None:
        super().__init__()
        self.builder = Builder(most=3)
        self.taken: set[tuple[float, bytes]] = set()

    @rule(off=st.integers(-2 * WINDOW, 2 * WINDOW), body=st.sampled_from([b"a", b"b"]))
    def send(self, off, body):
        if self.builder.takes(NOW + off, body) == "":
            assert abs(NOW + off - self.builder.now) <= WINDOW
            assert (off, body) not in self.taken
            self.taken.add((off, body))

    @rule(seconds=st.integers(-3 * WINDOW, 3 * WINDOW))
    def set_clock(self, seconds):
        self.builder.now = NOW + seconds

    @invariant()
    def memory_is_bounded(self):
        replays = self.builder.replays
        assert len(replays._remembered) == len(replays._oldest) <= 3
        assert not replays._under_way


TestAnyOrder = AnyOrder.TestCase


@given(st.lists(st.floats(NOW - WINDOW, NOW + WINDOW), unique_by=lambda each: f"{each:.6f}"))
def test_within_what_it_remembers_order_does_not_matter(signed):
    builder = Builder()
    assert [builder.takes(each) for each in signed] == [""] * len(signed)
