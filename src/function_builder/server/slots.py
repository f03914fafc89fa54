"""The slots of running builds, and the line of those that wait for one.

A request gets a slot. If there is none, it gets a place in the line, or it is refused. No slot is
free while a request waits that may have it. A tenant's requests keep their order. Among tenants,
`Shares` says which is the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import BUSY, Refusal
from function_builder.contract.tenancy import NO_LIMITS, LimitMet, Limits, rate_limit
from function_builder.server.shares import Shares

UNLIMITED_BUILDS: Final = 8
"""Queued builds at a time, where `max_inflight` is 0.

Without a limit their clients decide how many synchronous builds run. Nothing decides that for
queued builds: the builder would begin all that there are.
"""


class NoSlot(LimitMet):
    """Every slot is taken, and there was no waiting for one: pro-builder's words and code.

    Clients look for these words, in a stream's last line as in an answer of its own. They do not
    tell which limit was met; `setting` does.
    """

    def __init__(self, limit: int, setting: str = "max_inflight") -> None:
        super().__init__(setting, f"{BUSY} Max concurrent requests: {limit}")


class Closed(Refusal):
    """The builder starts no more builds."""

    def __init__(self) -> None:
        super().__init__(503, "the builder is shutting down: try again")


class Place:
    """What one request, or a tenant's queued builds, hold: a slot, or a place in line for one.

    Attributes:
        position: 0 has a slot; 1 is the next of its tenant to get one.
        tenant: the tenant that builds.
        queued: whether it is for a queued build.
        displaced: whether it lost its place to another tenant's request.
    """

    def __init__(self, slots: Slots, tenant: str, *, queued: bool) -> None:
        self.position = 0
        self.tenant = tenant
        self.queued = queued
        self.displaced = False
        self._slots = slots
        self._changed = asyncio.Event()

    def move_to(self, position: int) -> None:
        """Tell the follower of the position, if it is another one."""
        if position != self.position:
            self.position = position
            self.wake()

    def wake(self) -> None:
        """Let the follower of the position look again."""
        self._changed.set()

    async def positions(self) -> AsyncIterator[int]:
        """Yield the position, now and after each change, until it has a slot; for one follower.

        A slow follower misses positions in between.

        Raises:
            Closed: the builder is shutting down.
            NoSlot: the place went to another tenant's request.
        """
        while not self._slots.closed:
            if self.displaced:
                raise NoSlot(self._slots.limit)
            if not self.position:
                return
            self._changed.clear()
            yield self.position
            await self._changed.wait()
        raise Closed


class Slots:
    """A bounded number of slots, and one line for them; in a tenant's part, first come is first.

    Synchronous requests stand in it for themselves, and at most `max_queue` of them. Queued builds
    wait in JetStream; one place in the line stands for all of a tenant's. When it has a slot it
    takes one build, and the next one's place is the last of the line. So neither kind can keep
    the other from building, and a tenant with many queued builds delays no other.

    Where the line is full, a request displaces the last one of the tenant that has most in it.

    Args:
        limit: the most slots that may be taken at a time; 0: no limit.
        max_queue: how many requests may wait.
        unlimited: how many queued builds run at a time if `limit` is 0.
        limits: a tenant's.
        clock: seconds.

    Attributes:
        taken: the number of slots in use.
        closed: whether new requests are refused.
    """

    def __init__(
        self,
        limit: int,
        max_queue: int = 0,
        *,
        unlimited: int = UNLIMITED_BUILDS,
        limits: Callable[[str], Limits] = lambda _: NO_LIMITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.taken = 0
        self.closed = False
        self._max_queue = max_queue
        self._unlimited = unlimited
        self._taken_queued = 0
        self._lines: dict[str, list[Place]] = {}
        """Of each tenant that waits, in the order in which they began to."""
        self._limits = limits
        self._shares = Shares(lambda tenant: limits(tenant).weight, clock)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a slot."""
        return sum(map(_requests, self._lines.values()))

    def waiting_by_tenant(self) -> dict[str, int]:
        """How many places each tenant has in the line; its queued builds have one at most."""
        known = {**self._shares.running_by_tenant(), **self._lines}
        return {tenant: len(self._lines.get(tenant, ())) for tenant in known}

    def taken_by_tenant(self) -> dict[str, int]:
        """How many slots each tenant has."""
        return self._shares.running_by_tenant()

    @property
    def all_taken(self) -> bool:
        """Whether the next request would have to wait at least."""
        return bool(self.limit) and self.taken >= self.limit

    @property
    def full(self) -> bool:
        """Whether the next request of a builder without tenants would be refused."""
        return self.all_taken and self.waiting >= self._max_queue

    @contextmanager
    def place(self, tenant: str = DEFAULT_TENANT) -> Iterator[Place]:
        """Hold a request's slot, or wait for one; the end of the block always frees it.

        Raises:
            NoSlot: there is no room in the line either.
        """
        if self._must_wait(tenant):
            self._make_room(tenant)
        with self._standing(Place(self, tenant, queued=False)) as place:
            yield place

    @contextmanager
    def turn(self, tenant: str = DEFAULT_TENANT) -> Iterator[Place]:
        """Hold a slot for a queued build of a tenant, or wait for one; the line has room for it."""
        with self._standing(Place(self, tenant, queued=True)) as place:
            yield place

    def close(self) -> None:
        """Refuse new and waiting requests."""
        self.closed = True
        for line in self._lines.values():
            for place in line:
                place.wake()

    @contextmanager
    def _standing(self, place: Place) -> Iterator[Place]:
        line = self._lines.setdefault(place.tenant, [])
        line.append(place)
        place.move_to(len(line))
        self._hand_out()
        try:
            yield place
        finally:
            if not place.position:
                self._count(place, -1)
            elif not place.displaced:
                self._remove(place)
            self._hand_out()

    def _remove(self, place: Place) -> None:
        """Take a place out of its line; the ones behind move up."""
        line = self._lines[place.tenant]
        line.remove(place)
        if not line:
            del self._lines[place.tenant]
        for position, behind in enumerate(line, 1):
            behind.move_to(position)

    def _hand_out(self) -> None:
        """Give free slots to those in line, by the shares of their tenants."""
        while first := self._first_of_each():
            place = first[self._shares.first(first)]
            self._remove(place)
            self._count(place, 1)
            place.move_to(0)

    def _first_of_each(self) -> dict[str, Place]:
        """The first place of each tenant that may have a slot now."""
        if self.all_taken:
            return {}
        firsts = (next(filter(self._may_begin, line), None) for line in self._lines.values())
        return {place.tenant: place for place in firsts if place is not None}

    def _may_begin(self, place: Place) -> bool:
        if self._at_its_limit(place.tenant):
            return False
        return bool(self.limit) or not place.queued or self._taken_queued < self._unlimited

    def _at_its_limit(self, tenant: str) -> bool:
        limit = self._limits(tenant).max_inflight
        return bool(limit) and self._shares.running(tenant) >= limit

    def _must_wait(self, tenant: str) -> bool:
        return self.all_taken or self._at_its_limit(tenant)

    def _make_room(self, tenant: str) -> None:
        """See to it that the line has room for one more request of a tenant.

        Raises:
            NoSlot: it has none.
        """
        waiting = {each: _requests(line) for each, line in self._lines.items()}
        own, limits = waiting.get(tenant, 0), self._limits(tenant)
        if limits.max_queue is not None and own >= limits.max_queue:
            refusal = NoSlot(limits.max_inflight or self.limit, "max_queue")
            refusal.headers = rate_limit("max_queue", limits.max_queue)
            raise refusal
        if sum(waiting.values()) < self._max_queue:
            return
        most = max(waiting, key=waiting.__getitem__, default=tenant)
        # With one more, this tenant would have more than is left to the other.
        if waiting.get(most, 0) <= own + 1:
            raise NoSlot(self.limit)
        last = next(place for place in reversed(self._lines[most]) if not place.queued)
        self._remove(last)
        last.displaced = True
        last.wake()

    def _count(self, place: Place, change: int) -> None:
        self.taken += change
        self._taken_queued += change * place.queued
        (self._shares.begin if change > 0 else self._shares.end)(place.tenant)


def _requests(line: Sequence[Place]) -> int:
    """How many places are for requests; a tenant's queued builds have one at most."""
    return len(line) - sum(place.queued for place in line)
