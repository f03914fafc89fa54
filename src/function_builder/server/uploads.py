"""Uploads whose signature is not proven yet: a bounded number, and the slowest makes room."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from function_builder.builds.slots import NoSlot
from function_builder.server.spool import Intake

GRACE_SECONDS: Final = 5.0
"""An upload is left alone for so long, since its speed cannot be told yet."""


class TooManyUploads(NoSlot):
    """As many bodies are on their way as may be; a build slot may be free."""

    setting = "max_uploads"


class Uploads:
    """The uploads under way.

    A stranger needs no secret to begin one and can make it last, so when there are too many, the
    slowest has to go. A sender that is as fast as others is not found by that: against a flood
    only the network in front of the builder helps.

    Args:
        limit: how many there may be.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._intakes: dict[Intake, float] = {}

    @property
    def taken(self) -> int:
        """How many there are."""
        return len(self._intakes)

    @property
    def full(self) -> bool:
        """Whether another would be refused."""
        return self.taken >= self.limit and self._slowest() is None

    @contextmanager
    def place(self, intake: Intake) -> Iterator[None]:
        """Hold a place for an upload; the slowest of the others may lose its own.

        Raises:
            TooManyUploads: there are too many, and all have only just begun.
        """
        if self.taken >= self.limit:
            slowest = self._slowest()
            if slowest is None:
                raise TooManyUploads(self.limit)
            del self._intakes[slowest]
            slowest.give_up()
        self._intakes[intake] = time.monotonic()
        try:
            yield
        finally:
            self._intakes.pop(intake, None)

    def _slowest(self) -> Intake | None:
        now = time.monotonic()
        rates = {
            intake: intake.received / (now - begun)
            for intake, begun in self._intakes.items()
            if now - begun >= GRACE_SECONDS
        }
        return min(rates, key=lambda intake: rates[intake], default=None)
