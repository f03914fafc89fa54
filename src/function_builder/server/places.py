"""A place: a slot for a build, or the position in the line for one. `slots.py` moves it.

A request follows its place until it has a slot, or learns why it gets none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from function_builder.contract.errors import BUSY, Refusal
from function_builder.contract.tenancy import LimitMet


class NoSlot(LimitMet):
    """Every slot is taken and the line is full, with pro-builder's text and status code.

    Clients search for these words, in a stream's last line and in an answer. They do not say which
    limit was met; `setting` does.
    """

    def __init__(self, limit: int, setting: str = "max_inflight") -> None:
        super().__init__(setting, f"{BUSY} Max concurrent requests: {limit}")


class Closed(Refusal):
    """The builder starts no more builds."""

    def __init__(self) -> None:
        super().__init__(503, "the builder is shutting down: try again")


class Place:
    """The slot, or the place in the line, of one request or of a tenant's queued builds.

    Args:
        tenant: whose it is.
        queued: whether it is for queued builds.
        closed: whether the builder is shutting down.

    Attributes:
        position: 0: it has a slot; 1: it is the next one of its tenant.
        tenant: the same.
        queued: the same.
        number: its order among all places.
        in_line: whether the line has room for it; otherwise it only has a slot or a refusal.
        claiming: whether it has a slot, and waits for its claim on the tenant's `max_inflight`.
        refusal: why it lost its place; None: it has it.
    """

    def __init__(self, tenant: str, *, queued: bool, closed: Callable[[], bool]) -> None:
        self.position = 0
        self.tenant = tenant
        self.queued = queued
        self.number = 0
        self.in_line = queued
        self.claiming = False
        self.refusal: NoSlot | None = None
        self._closed = closed
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
        while not self._closed():
            if self.refusal is not None:
                raise self.refusal
            if not self.position:
                return
            self._changed.clear()
            if not self.claiming:
                yield self.position
            await self._changed.wait()
        raise Closed

    async def claimed(self) -> None:
        """Wait while it is not known whether the tenant may have one more build on all builders.

        Raises:
            NoSlot: it may not, and the line has no room.
        """
        while self.claiming:
            self._changed.clear()
            await self._changed.wait()
        if self.refusal is not None:
            raise self.refusal


class Shared(Protocol):
    """Shares each tenant's `max_inflight` with other builders."""

    def claim(self, place: Place) -> bool:
        """Claim one of the tenant's `max_inflight` for a place that has a slot.

        Returns:
            Whether it has one already. Otherwise `Slots.confirm` or `Slots.reject` follows.
        """

    def release(self, tenant: str) -> None:
        """Note that a tenant has one slot less here."""
