"""The build slots, and the line of the requests that wait for one.

A request gets a slot. If none is free, it gets a place in the line. If the line is full, it is
refused. A free slot is given at once to a waiting request that may have it. Each tenant's requests
keep their order. `Shares` chooses the next tenant.
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
"""The most queued builds that run at a time if `max_inflight` is 0.

Without this limit, the builder would start every build in the queue at once.
"""


class NoSlot(LimitMet):
    """Every slot is taken and the line is full, with pro-builder's text and status code.

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
    """The slot, or the place in the line, of one request or of a tenant's queued builds.

    Attributes:
        position: 0: it has a slot; 1: it is the next one of its tenant.
        tenant: its tenant.
        queued: whether it is for queued builds.
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
        """Set the position, and wake the follower if it has changed."""
        if position != self.position:
            self.position = position
            self.wake()

    def wake(self) -> None:
        """Wake the follower, so that it reads the position again."""
        self._changed.set()

    async def positions(self) -> AsyncIterator[int]:
        """Yield the position, now and after each change, until it has a slot.

        Only one follower is supported. A slow one misses positions in between.

        Raises:
            Closed: the builder is shutting down.
            NoSlot: another tenant's request displaced it.
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
    """A limited number of slots, and one line for them, in which each tenant's order is kept.

    Each synchronous request has its own place, and there are at most `max_queue` of them. Queued
    builds wait in JetStream, and a tenant has one place for all of them. When that place gets a
    slot, one build starts, and the tenant gets a new place at the end of its line. So neither kind
    of build blocks the other, and a tenant with many queued builds does not delay other tenants.

    If the line is full, a request displaces the last request of the tenant with the most requests
    in it.

    Args:
        limit: the number of slots; 0: no limit.
        max_queue: the most requests that wait.
        unlimited: the most queued builds that run at a time if `limit` is 0.
        limits: the limits of a tenant.
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
        """The waiting places of each tenant, in the order of their arrival."""
        self._limits = limits
        self._shares = Shares(lambda tenant: limits(tenant).weight, clock)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a slot."""
        return sum(map(_requests, self._lines.values()))

    def waiting_by_tenant(self) -> dict[str, int]:
        """The places of each tenant in the line; its queued builds have at most one."""
        known = {**self._shares.running_by_tenant(), **self._lines}
        return {tenant: len(self._lines.get(tenant, ())) for tenant in known}

    def taken_by_tenant(self) -> dict[str, int]:
        """The slots of each tenant."""
        return self._shares.running_by_tenant()

    @property
    def all_taken(self) -> bool:
        """Whether the next request would have to wait or be refused."""
        return bool(self.limit) and self.taken >= self.limit

    @property
    def full(self) -> bool:
        """Whether the next request of a builder without tenants would be refused."""
        return self.all_taken and self.waiting >= self._max_queue

    @contextmanager
    def place(self, tenant: str = DEFAULT_TENANT) -> Iterator[Place]:
        """Give a request a slot or a place in the line, until the block ends.

        Raises:
            NoSlot: the line is full too.
        """
        if self._must_wait(tenant):
            self._make_room(tenant)
        with self._standing(Place(self, tenant, queued=False)) as place:
            yield place

    @contextmanager
    def turn(self, tenant: str = DEFAULT_TENANT) -> Iterator[Place]:
        """Give a tenant's queued builds a slot or a place in the line, until the block ends."""
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
        self._fill_slots()
        try:
            yield place
        finally:
            if not place.position:
                self._count(place, -1)
            elif not place.displaced:
                self._remove(place)
            self._fill_slots()

    def _remove(self, place: Place) -> None:
        """Remove a place from its line; the places behind it move up."""
        line = self._lines[place.tenant]
        line.remove(place)
        if not line:
            del self._lines[place.tenant]
        for position, behind in enumerate(line, 1):
            behind.move_to(position)

    def _fill_slots(self) -> None:
        """Give free slots to waiting places, by the shares of their tenants."""
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
        """Make room in the line for one more request of a tenant.

        Raises:
            NoSlot: the line is full, and this request may not displace another.
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
        # Otherwise this tenant would then have more requests in the line than the other one.
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
    """The number of places for requests, without the one of the queued builds."""
    return len(line) - sum(place.queued for place in line)
