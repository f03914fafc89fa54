"""When a callback is attempted: the delay after a failure, and the limit of each host.

A slow receiver does not delay others, because each host has a limit of concurrent attempts. The
limit is one while the host does not answer, or is overloaded. This module does no I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from function_builder.queue.webhooks import Webhook

_DELAYS: Final = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
"""Seconds from each attempt to the next one; the last value is repeated."""

GIVE_UP_SECONDS: Final = 75 * 3600.0
"""Seconds after the event in which a retry may start; each callback has at least one attempt."""

_JITTER: Final = 0.1
_MAX_RETRY_AFTER: Final = 36_000.0

MAX_HOST_ATTEMPTS: Final = 8
"""Concurrent attempts to one host."""

_LONGEST_WAIT_SECONDS: Final = 600.0
_MAX_LANES: Final = 1024


def next_attempt(
    webhook: Webhook, now: float, retry_after: float | None, chance: float
) -> float | None:
    """When the next attempt is due, in UTC seconds; None: the callback expires.

    Args:
        webhook: with the number of attempts, including the failed one.
        now: when it failed.
        retry_after: the seconds that the receiver asked for, limited to 10 hours.
        chance: a random number from 0 to 1; it changes the delay by up to a tenth.
    """
    delay = _DELAYS[min(webhook.attempt, len(_DELAYS)) - 1]
    delay *= 1 + _JITTER * (2 * chance - 1)
    due = now + max(delay, min(retry_after or 0.0, _MAX_RETRY_AFTER))
    return due if due <= webhook.created + GIVE_UP_SECONDS else None


@dataclass(slots=True)
class Lane:
    """The attempts to one host.

    Attributes:
        running: how many run now.
        limit: how many may run at a time.
        seconds: how long one takes, on average.
        booked: the time until which the postponed callbacks use the limit.
    """

    running: int = 0
    limit: int = MAX_HOST_ATTEMPTS
    seconds: float = 0.1
    booked: float = 0.0

    def book(self, now: float) -> float:
        """For how many seconds to postpone a callback; at least one."""
        self.booked = max(self.booked, now + 1) + self.seconds / self.limit
        return min(self.booked - now, _LONGEST_WAIT_SECONDS)

    def note(self, seconds: float, *, well: bool) -> None:
        """Note how long an attempt took, and whether the host is healthy."""
        self.seconds += (seconds - self.seconds) / 4
        self.limit = MAX_HOST_ATTEMPTS if well else 1
        if well:
            self.booked = 0.0

    def idle(self, now: float) -> bool:
        """Whether it has no running and no postponed attempts."""
        return not self.running and self.booked < now


class Lanes:
    """The lanes of the hosts with the most recent callbacks."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, Lane] = OrderedDict()

    def of(self, host: str, now: float) -> Lane:
        """The lane of a host; the lane that was used least recently may be dropped."""
        lane = self._lanes.setdefault(host, Lane())
        self._lanes.move_to_end(host)
        if len(self._lanes) > _MAX_LANES:
            oldest = next(iter(self._lanes))
            if self._lanes[oldest].idle(now):
                del self._lanes[oldest]
        return lane
