"""Limit the memory of the logs of ended builds that their clients still read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from function_builder.builds.log import BuildLog

MAX_UNREAD_BYTES: Final = 64 << 20

_log = structlog.get_logger(__name__)


class UnreadLogs:
    """One limit for all these logs together, because their builds no longer occupy slots.

    Beyond the limit, the log that has not been read for the longest time is cut. A single log is
    not cut, because each log has its own limit.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int = MAX_UNREAD_BYTES) -> None:
        self._limit = limit
        self._logs: set[BuildLog] = set()
        self._answering: set[BuildLog] = set()

    @property
    def size(self) -> int:
        """The bytes of memory of all logs."""
        return sum(log.size for log in self._logs)

    def add(self, log: BuildLog) -> None:
        """Count the log of a build that has ended; this may cut other logs."""
        if log in self._answering:
            self._logs.add(log)
        while len(self._logs) > 1 and self.size > self._limit:
            longest = min(self._logs, key=lambda log: log.last_read)
            self._logs.remove(longest)
            longest.cut()
            _log.warning(
                "a log that its client does not read was cut: unread logs reached their limit"
            )

    @contextmanager
    def until_read(self, log: BuildLog) -> Iterator[None]:
        """Count a log as read until the end of the block."""
        self._answering.add(log)
        try:
            yield
        finally:
            self._answering.discard(log)
            self._logs.discard(log)
