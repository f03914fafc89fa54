"""How many builds run at a time, and which is next: the slots, and the line for them.

A request gets a slot, or else the line's last place, or else a refusal. Requests keep their order,
and no slot is free while one waits: a build that ends gives its slot to the first in line.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import BUSY, Refusal

UNLIMITED_BUILDS: Final = 8
"""Queued builds at a time, where `max_inflight` is 0.

Without a limit their clients decide how many synchronous builds run. Nothing decides that for
queued builds: the builder would begin all that there are.
"""


class NoSlot(Refusal):
    """Every slot is taken, and there was no waiting for one: pro-builder's words and code.

    Clients look for these words, in a stream's last line as in an answer of its own.

    Attributes:
        setting: which limit was met, for the operator: the words do not tell.
    """

    setting = "max_inflight"

    def __init__(self, limit: int) -> None:
        super().__init__(429, f"{BUSY} Max concurrent requests: {limit}")


class Closed(Refusal):
    """No build is begun any more."""

    def __init__(self) -> None:
        super().__init__(503, "the builder is shutting down: try again")


class Place:
    """What one request, or a tenant's queued builds, hold: a slot, or a place in line for one.

    Attributes:
        position: 1 is the next to have a slot; 0 has one.
        tenant: whose it is.
        queued: whether it is for a queued build.
    """

    def __init__(self, slots: Slots, tenant: str, *, queued: bool) -> None:
        self.position = 0
        self.tenant = tenant
        self.queued = queued
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
        """Yield the position, now and when it has changed, until there is a slot; for one follower.

        One that is slow misses positions in between, and no more than that.

        Raises:
            Closed: there will be none.
        """
        while not self._slots.closed:
            if not self.position:
                return
            self._changed.clear()
            yield self.position
            await self._changed.wait()
        raise Closed


class Slots:
    """A bounded number of slots, and one line for them, first come, first served.

    Synchronous requests stand in it for themselves, and at most `max_queue` of them. Queued builds
    wait in JetStream; one place in the line stands for all of a tenant's. When it has a slot it
    takes one build, and the next one's place is the last of the line. So neither kind can keep
    the other from building, and a tenant with many queued builds delays no other.

    Args:
        limit: the most slots that may be taken at a time; 0: no limit.
        max_queue: how many requests may wait.
        unlimited: how many queued builds run at a time where there is no limit.

    Attributes:
        taken: how many slots are.
        closed: whether new requests are refused.
    """

    def __init__(
        self, limit: int, max_queue: int = 0, *, unlimited: int = UNLIMITED_BUILDS
    ) -> None:
        self.limit = limit
        self.taken = 0
        self.closed = False
        self._max_queue = max_queue
        self._unlimited = unlimited
        self._taken_queued = 0
        self._line: list[Place] = []

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return sum(not place.queued for place in self._line)

    @property
    def all_taken(self) -> bool:
        """Whether the next request would have to wait at least."""
        return bool(self.limit) and self.taken >= self.limit

    @property
    def full(self) -> bool:
        """Whether the next request would be refused."""
        return self.all_taken and self.waiting >= self._max_queue

    @contextmanager
    def place(self, tenant: str = DEFAULT_TENANT) -> Iterator[Place]:
        """Hold a request's slot, or wait for one; it is given back on every way out.

        Raises:
            NoSlot: there is no room in the line either.
        """
        if self.full:
            raise NoSlot(self.limit)
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
        for place in self._line:
            place.wake()

    @contextmanager
    def _standing(self, place: Place) -> Iterator[Place]:
        self._line.append(place)
        self._hand_out()
        try:
            yield place
        finally:
            if place.position:
                self._line.remove(place)
            else:
                self._count(place, -1)
            self._hand_out()

    def _hand_out(self) -> None:
        """Give free slots to the first in line."""
        for place in [place for place in self._line if self._may_begin(place)]:
            if self._may_begin(place):
                self._line.remove(place)
                self._count(place, 1)
                place.move_to(0)
        for position, place in enumerate(self._line, 1):
            place.move_to(position)

    def _may_begin(self, place: Place) -> bool:
        if self.limit:
            return self.taken < self.limit
        return not place.queued or self._taken_queued < self._unlimited

    def _count(self, place: Place, change: int) -> None:
        self.taken += change
        self._taken_queued += change * place.queued
