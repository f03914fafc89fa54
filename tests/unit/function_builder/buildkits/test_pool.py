"""Which BuildKit a build is sent to."""

import asyncio
import string
from collections import Counter
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from aiobuildkit import ConnectionFailed
from function_builder.buildkits import pool as module
from function_builder.buildkits.addresses import Addresses, Endpoint
from function_builder.buildkits.pool import Chosen, Pool
from tests.support import until

FUNCTIONS = [f"domain/registry.example.com/function-{number}" for number in range(1000)]


class BuildKit:
    """One that answers as long as it is there."""

    def __init__(self, endpoint: Endpoint, workers: dict[str, str]) -> None:
        self.address = endpoint.address
        self._workers = workers

    async def info(self) -> None:
        if self.address not in self._workers:
            raise ConnectionFailed(self.address, "no route to host")

    async def list_workers(self) -> list[SimpleNamespace]:
        await self.info()
        return [SimpleNamespace(id=self._workers[self.address])]


def address(number: int) -> str:
    return f"tcp://10.0.0.{number}:1234"


def pool_of(workers: dict[str, str], *, extra: tuple[str, ...] = ()) -> Pool:
    """A pool that has asked each of `workers`, its address -> its worker's id; `extra` are away."""
    endpoints = tuple(Endpoint(each) for each in (*workers, *extra))
    pool = Pool(Addresses("", endpoints), lambda endpoint: BuildKit(endpoint, workers))  # type: ignore[arg-type, return-value]
    asyncio.run(ask(pool))
    return pool


async def ask(pool: Pool) -> None:
    for daemon in pool.daemons.values():
        await daemon.ask()


def home(pool: Pool, function: str) -> str:
    with pool.place(function) as (daemon, reason):
        assert reason is Chosen.HOME
        return daemon.identity


workers = st.sets(st.text(string.ascii_lowercase, min_size=1), min_size=1, max_size=8).map(
    lambda ids: {address(number): each for number, each in enumerate(sorted(ids))}
)


@given(workers, st.randoms())
def test_builders_agree_whatever_order_they_know_the_buildkits_in(known, random):
    other = list(known.items())
    random.shuffle(other)
    mine, theirs = pool_of(known), pool_of(dict(other))
    assert all(home(mine, each) == home(theirs, each) for each in FUNCTIONS[:50])


@given(workers)
def test_only_the_functions_of_a_buildkit_that_goes_move_and_they_come_back(known):
    whole = pool_of(known | {address(99): "the one that goes"})
    without = pool_of(known)
    moved = [each for each in FUNCTIONS[:200] if home(whole, each) != home(without, each)]
    assert moved == [each for each in FUNCTIONS[:200] if home(whole, each) == "the one that goes"]


def test_a_buildkit_takes_its_functions_to_a_new_address():
    before = pool_of({address(number): f"worker-{number}" for number in range(4)})
    after = pool_of({address(number + 10): f"worker-{number}" for number in range(4)})
    assert all(home(before, each) == home(after, each) for each in FUNCTIONS)


def test_functions_are_spread_evenly():
    pool = pool_of({address(number): f"worker-{number}" for number in range(8)})
    homes = Counter(home(pool, each) for each in FUNCTIONS)
    # Of 1000 balls in 8 bins each has 125 and seldom more than a third from it.
    assert len(homes) == 8
    assert all(80 < number < 170 for number in homes.values())


@given(workers, st.lists(st.sampled_from(FUNCTIONS[:5]), max_size=100))
def test_no_buildkit_has_much_more_than_its_share(known, asked):
    pool = pool_of(known)
    with ExitStack() as stack:
        for number, function in enumerate(asked, 1):
            stack.enter_context(pool.place(function))
            if len(known) > 1:
                most = max(daemon.builds for daemon in pool.daemons.values())
                assert most <= max(4, 1.25 * number / len(known) + 1)
    assert all(daemon.builds == 0 for daemon in pool.daemons.values())


def test_a_busy_home_hands_on_to_the_one_that_its_end_would():
    known = {address(number): f"worker-{number}" for number in range(4)}
    pool = pool_of(known)
    function = FUNCTIONS[0]
    with ExitStack() as stack:
        placed = [stack.enter_context(pool.place(function)) for _ in range(5)]
    assert [reason for _, reason in placed] == [Chosen.HOME] * 4 + [Chosen.BUSY]
    with pool.place(function, lost=placed[0][0]) as (daemon, reason):
        assert reason is Chosen.LOST
        assert daemon is placed[4][0]


def test_those_that_are_away_are_left_out_until_none_is_there():
    pool = pool_of({address(1): "here"}, extra=(address(2), address(3)))
    assert {home(pool, each) for each in FUNCTIONS[:50]} == {"here"}
    nobody = pool_of({}, extra=(address(2), address(3)))
    assert not nobody.reachable
    assert len({home(nobody, each) for each in FUNCTIONS[:50]}) == 2


def test_one_buildkit_with_two_addresses_counts_once():
    pool = pool_of({address(1): "same", "tcp://[fd00::1]:1234": "same", address(2): "other"})
    assert len({id(daemon) for daemon in pool._usable()}) == 2
    pool.doubt(pool.daemons[address(1)])
    assert [each.identity for each in pool.daemons.values() if each.reachable] == ["other"]


async def test_membership_follows_the_names_and_outlives_a_silent_resolver():
    class Names(Addresses):
        known: tuple[str, ...] = ()

        async def resolve(self) -> list[Endpoint]:
            if not Names.known:
                raise OSError("Temporary failure in name resolution")
            return [Endpoint(each, "buildkit") for each in Names.known]

    names = Names("dns://buildkit:1234", (), (("buildkit", 1234),))
    pool = Pool(names, lambda endpoint: BuildKit(endpoint, {}))  # type: ignore[arg-type, return-value]
    with pytest.raises(ConnectionFailed, match="dns://buildkit:1234: there is no BuildKit"):
        pool.place("any").__enter__()
    Names.known = (address(1), address(2))
    await pool.refresh()
    first, second = pool.daemons.values()
    Names.known = ()
    await pool.refresh()
    assert list(pool.daemons.values()) == [first, second]
    Names.known = (address(2), address(3))
    await pool.refresh()
    assert list(pool.daemons) == [address(2), address(3)]
    assert pool.daemons[address(2)] is second


async def test_a_fault_is_told_and_does_not_end_the_watch(monkeypatch):
    monkeypatch.setattr(module, "_PERIOD", 0.01)

    class Names(Addresses):
        asked = 0

        async def resolve(self) -> list[Endpoint]:
            Names.asked += 1
            if Names.asked == 1:
                raise ValueError("a fault")
            return [Endpoint(address(1), "buildkit")]

    names = Names("dns://buildkit:1234", (), (("buildkit", 1234),))
    pool = Pool(names, lambda endpoint: BuildKit(endpoint, {address(1): "w"}))  # type: ignore[arg-type, return-value]
    with capture_logs() as logs:
        watch = asyncio.create_task(pool.watch())
        await until(lambda: pool.reachable)
        watch.cancel()
    told = [line["event"] for line in logs if line.get("exc_info")]
    assert told[0] == "the names of BuildKits could not be looked up"
