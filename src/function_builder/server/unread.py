"""The memory that logs take whose builds have ended, and whose clients have not read them yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from function_builder.builds.log import BuildLog

MAX_UNREAD_BYTES: Final = 64 << 20

_log = structlog.get_logger(__name__)


class UnreadLogs:
    """A budget over all such logs: they hold no slot, so that no other bound applies to them.

    Beyond it, the log is cut whose client has read nothing for the longest time. The last one is
    kept whatever its size, because a log has a bound of its own.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int = MAX_UNREAD_BYTES) -> None:
        self._limit = limit
        self._logs: set[BuildLog] = set()
        self._answering: set[BuildLog] = set()

    @property
    def size(self) -> int:
        """Bytes of memory that they take."""
        return sum(log.size for log in self._logs)

    def add(self, log: BuildLog) -> None:
        """Count a log, now that its build has ended; others may be cut for it."""
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
        """Read a log in the block, at whose end it is forgotten."""
        self._answering.add(log)
        try:
            yield
        finally:
            self._answering.discard(log)
            self._logs.discard(log)
