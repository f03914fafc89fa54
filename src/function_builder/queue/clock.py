"""The time of NATS, which all builders of a queue use.

A builder's own clock may be wrong, and may jump. A build that waits for seconds could then seem to
have waited for hours.
"""

from __future__ import annotations

import time


class Clock:
    """Seconds since the epoch; this machine's time until the time of NATS is known."""

    def __init__(self) -> None:
        # From the monotonic clock, which does not jump.
        self._offset: float | None = None

    def set(self, now: float) -> None:
        """Set the time of NATS."""
        self._offset = now - time.monotonic()

    def now(self) -> float:
        """The current time."""
        return time.time() if self._offset is None else time.monotonic() + self._offset
