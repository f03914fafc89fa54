"""The build slots, and the line of the requests that wait for one.

A request gets a slot. If none is free, it gets a place in the line. If the line is full, it is
refused. A free slot is given at once to a waiting request that may have it. Each tenant's requests
keep their order. `Shares` chooses the next tenant.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from operator import attrgetter
from typing import Final

from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.tenancy import NO_LIMITS, Limits, rate_limit
from function_builder.server.places import NoSlot, Place, Shared
from function_builder.server.shares import Shares

UNLIMITED_BUILDS: Final = 8
"""The most queued builds that run at a time if `max_inflight` is 0.

Without this limit, the builder would start every build in the queue at once.
"""


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
        shared: counts a tenant's builds on other builders; None: only those here count.
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
        self.shared: Shared | None = None
        self._max_queue = max_queue
        self._unlimited = unlimited
        self._taken_queued = 0
        self._numbers = count(1)
        self._lines: dict[str, list[Place]] = {}
        """The waiting places of each tenant, in the order of their arrival."""
        self._blocked: set[str] = set()
        """Tenants that wait for the end of a build on another builder."""
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

    def running(self, tenant: str) -> int:
        """How many slots a tenant has."""
        return self._shares.running(tenant)

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
        place = self._new_place(tenant, queued=False)
        if self._must_wait(tenant):
            self._make_room(place)
        with self._standing(place):
            yield place

    @contextmanager
    def turn(self, tenant: str = DEFAULT_TENANT) -> Iterator[Place]:
        """Give a tenant's queued builds a slot or a place in the line, until the block ends."""
        with self._standing(self._new_place(tenant, queued=True)) as place:
            yield place

    def close(self) -> None:
        """Refuse new and waiting requests."""
        self.closed = True
        for line in self._lines.values():
            for place in line:
                place.wake()

    def confirm(self, place: Place) -> None:
        """Accept the claim of a place: it has its slot."""
        place.claiming = False
        place.move_to(0)

    def reject(self, place: Place) -> None:
        """Reject the claim of a place: its tenant has reached its limit. The slot is free again."""
        tenant = place.tenant
        place.claiming = False
        self._count(place, -1)
        self._blocked.add(tenant)
        try:
            if not place.in_line:
                self._make_room(place)
        except NoSlot as refusal:
            place.refusal = refusal
            if tenant not in self._lines:
                self._blocked.discard(tenant)
        else:
            line = self._lines.setdefault(tenant, [])
            insort(line, place, key=attrgetter("number"))
            _renumber(line)
        place.wake()
        self._fill_slots()

    def unblock(self, tenant: str) -> None:
        """Let a tenant claim again: a build of it has ended on another builder."""
        if tenant in self._blocked:
            self._blocked.discard(tenant)
            self._fill_slots()

    def waits_elsewhere(self, tenant: str) -> bool:
        """Whether a tenant's next build here waits for the end of one on another builder."""
        return tenant in self._blocked

    def _new_place(self, tenant: str, *, queued: bool) -> Place:
        return Place(tenant, queued=queued, closed=lambda: self.closed)

    @contextmanager
    def _standing(self, place: Place) -> Iterator[Place]:
        place.number = next(self._numbers)
        line = self._lines.setdefault(place.tenant, [])
        line.append(place)
        place.move_to(len(line))
        self._fill_slots()
        try:
            yield place
        finally:
            if place.claiming or not place.position:
                place.claiming = False
                self._count(place, -1)
                self._blocked.discard(place.tenant)
            elif place.refusal is None:
                self._remove(place)
            self._fill_slots()
            if self.shared is not None:
                self.shared.release(place.tenant)

    def _remove(self, place: Place) -> None:
        """Remove a place from its line; the places behind it move up."""
        line = self._lines[place.tenant]
        line.remove(place)
        if not line:
            del self._lines[place.tenant]
            # The tenant's next place claims again.
            self._blocked.discard(place.tenant)
        _renumber(line)

    def _fill_slots(self) -> None:
        """Give free slots to waiting places, by the shares of their tenants."""
        while first := self._first_of_each():
            place = first[self._shares.first(first)]
            self._remove(place)
            self._count(place, 1)
            place.claiming = True
            if self.shared is None or self.shared.claim(place):
                self.confirm(place)

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
        return tenant in self._blocked or (bool(limit) and self.running(tenant) >= limit)

    def _must_wait(self, tenant: str) -> bool:
        return self.all_taken or self._at_its_limit(tenant)

    def _make_room(self, place: Place) -> None:
        """Make room in the line for one more request.

        Raises:
            NoSlot: the line is full, and this request may not displace another.
        """
        tenant, place.in_line = place.tenant, True
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
            raise self._no_slot(tenant)
        last = next(place for place in reversed(self._lines[most]) if not place.queued)
        self._remove(last)
        last.refusal = self._no_slot(most)
        last.wake()

    def _no_slot(self, tenant: str) -> NoSlot:
        if not self._at_its_limit(tenant):
            return NoSlot(self.limit)
        limit = self._limits(tenant).max_inflight
        refusal = NoSlot(limit)
        refusal.headers = rate_limit("max_inflight", limit)
        return refusal

    def _count(self, place: Place, change: int) -> None:
        self.taken += change
        self._taken_queued += change * place.queued
        (self._shares.begin if change > 0 else self._shares.end)(place.tenant)


def _renumber(line: Sequence[Place]) -> None:
    for position, place in enumerate(line, 1):
        place.move_to(position)


def _requests(line: Sequence[Place]) -> int:
    """The number of places for requests, without the one of the queued builds."""
    return len(line) - sum(place.queued for place in line)
