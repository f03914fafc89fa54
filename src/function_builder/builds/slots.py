"""How many builds are run at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class NoSlotError(Exception):
    """Every slot is taken."""


class Slots:
    """A bounded count.

    Args:
        limit: the most that may be taken at a time; 0: no limit.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    @property
    def full(self) -> bool:
        """Whether the next one would be refused."""
        return bool(self.limit) and self.taken >= self.limit

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot; it is given back on every way out.

        Raises:
            NoSlotError: none is free.
        """
        if self.full:
            raise NoSlotError
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
