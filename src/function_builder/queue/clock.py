"""The clock of a queue: that of NATS, which all its builders share.

A builder's own clock may be wrong, and may jump. By it, a build that waits would seem to have
waited for hours.
"""

from __future__ import annotations

import time


class Clock:
    """Seconds since the epoch; by this machine's clock until that of NATS is known."""

    def __init__(self) -> None:
        # From the monotonic clock, which does not jump.
        self._offset: float | None = None

    def set(self, now: float) -> None:
        """Take over the time of NATS."""
        self._offset = now - time.monotonic()

    def now(self) -> float:
        """The time."""
        return time.time() if self._offset is None else time.monotonic() + self._offset
