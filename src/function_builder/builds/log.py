"""A build's log: an append-only list of lines, with any number of followers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

MAX_LOG_CHARS: Final = 16 << 20
"""The most characters of a log, because it is in memory until the build is answered.

BuildKit clips each step's output at 2 MiB, so only a build of many verbose steps reaches this.
"""

_LINE_CHARS: Final = 16
"""Characters that a line counts in addition to its text, so that empty lines are limited too."""


_LINE_BYTES: Final = 64
"""Bytes of memory for a line in addition to its text: its list entry, and its step's name."""

_BATCH_CHARS: Final = 32 * 1024
"""Characters that a follower gets at a time; a small number, so that a cut log frees memory."""

CUT: Final = (
    "The log was cut here: the client did not read it, and other builds' logs needed the memory."
)

GATHER_SECONDS: Final = 0.02
"""Seconds for which lines are collected before a waiting follower gets them.

BuildKit sends a step's start, progress and end separately, and each piece would be a line of the
reply and a packet. Readers do not notice it, and the log's end does not wait.
"""


class BuildLog:
    """An append-only list of lines.

    Attributes:
        size: bytes of memory for the lines.
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
        """Drop the lines; followers that have not read all of them get a line that says so."""
        self._lines = []
        self._is_cut = True
        self.size = 0
        self._wake()

    def close(self) -> None:
        """End the log, and so its followers."""
        self._end.set()
        self._wake()

    async def follow(self, heartbeat: float) -> AsyncIterator[Sequence[str]]:
        """Yield the lines in order, all that there are at a time, up to some 32 Ki characters.

        Yields an empty sequence after `heartbeat` seconds without a line. Ends when the log is
        closed and read, or cut. A slow follower does not delay others.
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
                # A write that does not block does not let other tasks run.
                await asyncio.sleep(0)
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
        # Each follower waits for its own event, so that it does not miss a change.
        self._changed.set()
        self._changed = asyncio.Event()
