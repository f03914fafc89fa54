"""A build's log: lines are appended as they happen, and any number of followers read them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

MAX_LOG_CHARS: Final = 16 << 20
"""A log is held in memory until its build is answered, so it has an end: 16 Mi characters.

BuildKit clips each step's output at 2 MiB, so that only a build of many noisy steps gets here.
"""

_LINE_CHARS: Final = 16
"""What a line counts beside its text, so that empty ones come to an end too."""


_LINE_BYTES: Final = 64
"""What a line takes in memory beside itself: its place in the list, and its step's name."""

_BATCH_CHARS: Final = 32 * 1024
"""A follower is given about so much at a time, so that a log that is cut leaves memory."""

CUT: Final = (
    "The log was cut here: its client had not read it, and other builds' logs needed the memory."
)

GATHER_SECONDS: Final = 0.02
"""For so long lines are gathered before a follower that waits is given them.

BuildKit tells of a step's beginning, progress and end apart, and each piece is a line of the reply
and a packet. Readers see no difference, and the log's end does not wait.
"""


class BuildLog:
    """An append-only list of lines.

    Attributes:
        size: bytes of memory that it takes.
        last_read: when a follower last asked for lines, in the monotonic clock's seconds.
    """

    def __init__(self) -> None:
        self.size = 0
        self.last_read = time.monotonic()
        self._lines: list[str] = []
        self._appended = 0
        self._is_cut = False
        self._chars = 0
        self._end = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def lines(self) -> Sequence[str]:
        """The lines so far."""
        return (CUT,) if self._is_cut else self._lines

    def append(self, lines: Sequence[str]) -> None:
        """Add lines, unless the log is full."""
        if not lines or self._is_cut or self._chars > MAX_LOG_CHARS:
            return
        self.size += sum(map(sys.getsizeof, lines)) + _LINE_BYTES * len(lines)
        self._lines += lines
        self._appended += len(lines)
        self._chars += sum(map(len, lines)) + _LINE_CHARS * len(lines)
        if self._chars > MAX_LOG_CHARS:
            self._lines.append(f"The log ends here: it is longer than {MAX_LOG_CHARS} characters.")
        self._wake()

    def cut(self) -> None:
        """Drop the lines; followers that have not read them all are told so."""
        self._lines = []
        self._is_cut = True
        self.size = 0
        self._wake()

    def close(self) -> None:
        """Nothing follows: followers end."""
        self._end.set()
        self._wake()

    async def follow(self, heartbeat: float) -> AsyncIterator[Sequence[str]]:
        """Yield the lines in order, as many at a time as there are, up to some 32 Ki characters.

        Yields nothing (an empty sequence) after `heartbeat` seconds without a line. Ends when the
        log is closed and read, or cut. A slow follower delays no other one.
        """
        position = 0
        while True:
            self.last_read = time.monotonic()
            if self._is_cut and position < self._appended:
                yield (CUT,)
                return
            if position < len(self._lines):
                fresh = self._batch(position)
                position += len(fresh)
                yield fresh
            elif self._end.is_set():
                return
            else:
                changed = self._changed
                try:
                    async with asyncio.timeout(heartbeat):
                        await changed.wait()
                except TimeoutError:
                    yield ()
                else:
                    await self._gather()

    def _batch(self, position: int) -> Sequence[str]:
        chars, end = 0, position
        while end < len(self._lines) and chars < _BATCH_CHARS:
            chars += len(self._lines[end]) + _LINE_CHARS
            end += 1
        return self._lines[position:end]

    async def _gather(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await self._end.wait()

    def _wake(self) -> None:
        # Each follower waits on the event that it saw, so that none misses a change.
        self._changed.set()
        self._changed = asyncio.Event()
