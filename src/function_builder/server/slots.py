"""How many builds run at a time, and who is next: the slots, and the queue for them.

A request gets a slot, or else the queue's last place, or else a refusal. Requests keep their order,
and no slot is free while one waits: a build that ends gives its slot to the first of the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from function_builder.contract.errors import BUSY, Refusal


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
    """What one request holds: a slot, or a place in the queue for one.

    Attributes:
        position: 1 is the next to have a slot; 0 has one.
    """

    def __init__(self, slots: Slots, position: int) -> None:
        self.position = position
        self._slots = slots
        self._changed = asyncio.Event()

    def move_up(self) -> None:
        """A request before it has left the queue."""
        self.position -= 1
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
    """A bounded number of slots, and a bounded queue for them, first come, first served.

    Args:
        limit: the most slots that may be taken at a time; 0: no limit.
        max_queue: how many may wait.

    Attributes:
        taken: how many slots are.
        closed: whether new requests are refused.
    """

    def __init__(self, limit: int, max_queue: int = 0) -> None:
        self.limit = limit
        self.taken = 0
        self.closed = False
        self._max_queue = max_queue
        self._queue: list[Place] = []
        self._freed = asyncio.Event()

    async def freed(self) -> None:
        """Wait until a slot is given back that no request waits for."""
        self._freed.clear()
        await self._freed.wait()

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._queue)

    @property
    def all_taken(self) -> bool:
        """Whether the next one would have to wait at least."""
        return bool(self.limit) and self.taken >= self.limit

    @property
    def full(self) -> bool:
        """Whether the next one would be refused."""
        return self.all_taken and self.waiting >= self._max_queue

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Hold a slot or wait for one; it is given back on every way out.

        Raises:
            NoSlot: there is no room in the queue either.
        """
        if self.full:
            raise NoSlot(self.limit)
        if self.all_taken:
            place = Place(self, self.waiting + 1)
            self._queue.append(place)
        else:
            place = Place(self, 0)
            self.taken += 1
        try:
            yield place
        finally:
            self._leave(place)

    def close(self) -> None:
        """Refuse new and waiting requests."""
        self.closed = True
        for place in self._queue:
            place.wake()

    def _leave(self, place: Place) -> None:
        left = place.position
        for behind in self._queue[left:]:
            behind.move_up()
        if left or self._queue:
            # The one that waited is gone, or the first of the queue has the slot.
            del self._queue[max(left - 1, 0)]
        else:
            self.taken -= 1
            self._freed.set()
