"""A builder accepts each signed request once, because it remembers the request's timestamp.

With only a window of time, a replay would be accepted for some minutes. With only the memory, the
memory would have to be unlimited. Together they exclude replays to one builder, as long as it runs,
in bounded memory. The rule is: **a timestamp that is older than a forgotten one is refused**. A
timestamp is forgotten because of its age, or because there are too many and it is the oldest. So a
clock that is set back does not make an old request acceptable. A builder that gets more requests
than it can remember has a shorter window, but still accepts no replay. A builder that has just
started has forgotten nothing, and so only the window limits what it accepts.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from function_builder.contract.errors import Refusal
from function_builder.contract.signature import SIGNATURE_HEADER
from function_builder.contract.timestamp import TIMESTAMP_HEADER, Timestamp, read_timestamp

MOST: Final = 20_000
"""Requests to remember, some 5 MB: 66 a second in a window of five minutes."""

_ABSENT: Final = (
    f"{TIMESTAMP_HEADER} is absent or wrong, and this builder asks for it (replay_window): it must "
    "be the time in unix seconds, a space, sha256= and the hex HMAC-SHA256, keyed by the payload "
    f"secret, over that time, a space and the value of {SIGNATURE_HEADER}"
)


class Replays:
    """The timestamps of the requests that one builder has accepted.

    Args:
        window: seconds by which a timestamp may differ from the builder's clock, either way.
        most: how many to remember.
        clock: seconds since the epoch.
    """

    def __init__(
        self, window: float, *, most: int = MOST, clock: Callable[[], float] = time.time
    ) -> None:
        self._window = window
        self._most = most
        self._clock = clock
        self._under_way: set[Timestamp] = set()
        self._remembered: set[Timestamp] = set()
        self._oldest: list[Timestamp] = []  # a heap of the same
        self._forgotten = 0.0

    @contextmanager
    def claim(
        self, header: str | None, signature: str | None, secrets: Sequence[bytes]
    ) -> Iterator[Timestamp]:
        """Check a request's timestamp, and refuse equal requests until the block ends.

        Only the headers have to arrive within the window, so the body may be slow. A request that
        is not remembered in the end may be sent again as it is.

        Args:
            header: the value of `X-Build-Timestamp`.
            signature: the value of `X-Build-Signature`, which the body has yet to match.
            secrets: the payload secrets that may have signed it.

        Raises:
            Refusal: 401.
        """
        timestamp = read_timestamp(header, signature, secrets)
        if timestamp is None:
            raise Refusal(401, _ABSENT)
        self._check(timestamp)
        self._under_way.add(timestamp)
        try:
            yield timestamp
        finally:
            self._under_way.remove(timestamp)

    def remember(self, timestamp: Timestamp) -> None:
        """Remember a request that is claimed, proven, and is about to be built."""
        self._remembered.add(timestamp)
        heapq.heappush(self._oldest, timestamp)
        horizon = self._clock() - self._window
        while self._oldest and (
            len(self._oldest) > self._most or self._oldest[0].seconds < horizon
        ):
            gone = heapq.heappop(self._oldest)
            self._remembered.remove(gone)
            self._forgotten = max(self._forgotten, gone.seconds)

    def _check(self, timestamp: Timestamp) -> None:
        ahead = timestamp.seconds - self._clock()
        if timestamp in self._remembered or timestamp in self._under_way:
            raise Refusal(401, "this request was already accepted: sign it again to build it again")
        if abs(ahead) > self._window:
            raise Refusal(
                401,
                f"{TIMESTAMP_HEADER} is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} "
                f"the builder's clock, and may be {self._window:g} s: is your clock right, and was "
                "the request signed just before it was sent?",
            )
        if timestamp.seconds <= self._forgotten:
            raise Refusal(
                401, f"{TIMESTAMP_HEADER} is older than what this builder remembers: sign it again"
            )
