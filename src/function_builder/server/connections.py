"""Limits of HTTP connections without a request, and how connections are closed.

If the builder closes a connection while a proxy sends a request on it, the proxy does not know
whether the request was processed. It does not retry a POST, and its client gets a 502. So the
builder keeps idle connections longer than its peers do, and announces that it closes one with
`Connection: close` where it can (RFC 9112, 9.6).
"""

from __future__ import annotations

import resource
import select
from typing import Final, Protocol

from function_builder.server.crowd import Crowd

MOST_IDLE: Final = 1000
"""The most idle connections; each needs a file descriptor and about 10 kB."""

MOST_PENDING: Final = 1000
"""The most connections that are receiving headers or closing; each needs at most 50 kB."""


class Connection(Protocol):
    """A connection, as far as its limits need it.

    Attributes:
        source: what its client's address counts for (`source_of`).
    """

    source: str

    def announce_close(self) -> None:
        """Add `Connection: close` to the current answer, if its headers are not sent yet."""

    def close_idle(self) -> None:
        """Close it, unless a request has arrived."""

    def drop(self) -> None:
        """Close it at once."""


class Connections:
    """The connections of one builder, on all of its ports.

    A connection is idle (between two requests), pending (it is receiving headers, or is closing) or
    busy (a request's headers have arrived, and its answer is not complete). The numbers of idle and
    pending ones are limited. Beyond the limit, the source with the most connections loses its
    oldest.

    Args:
        keep_alive: seconds for which an idle connection is kept; 0: each answer closes its own.
        most_idle: by default 1000, or a quarter of the process's file descriptors if those are
            fewer.
        most_pending: the same by default.
    """

    def __init__(
        self, keep_alive: float, most_idle: int | None = None, most_pending: int | None = None
    ) -> None:
        quarter = _quarter_of_descriptors()
        self.keep_alive = keep_alive
        self._most_idle = min(MOST_IDLE, quarter) if most_idle is None else most_idle
        self._most_pending = min(MOST_PENDING, quarter) if most_pending is None else most_pending
        self._all: set[Connection] = set()
        self._idle: Crowd[Connection] = Crowd()
        self._pending: Crowd[Connection] = Crowd()
        self._announcing = keep_alive == 0
        self._draining = False

    @property
    def announcing(self) -> bool:
        """Whether answers say `Connection: close`."""
        return self._announcing

    def opened(self, connection: Connection) -> None:
        """Add a new connection."""
        self._all.add(connection)

    def lost(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._all.discard(connection)
        self.busy(connection)

    def idle(self, connection: Connection) -> None:
        """Note that a connection waits for its next request."""
        self._idle.add(connection, connection.source)
        if self._draining:
            connection.close_idle()
        elif len(self._idle) > self._most_idle:
            longest = self._idle.oldest_of_largest()
            self._idle.discard(longest)
            longest.close_idle()

    def pending(self, connection: Connection) -> None:
        """Note that a connection is receiving headers, or is closing."""
        self._pending.add(connection, connection.source)
        if len(self._pending) > self._most_pending:
            oldest = self._pending.oldest_of_largest()
            self._pending.discard(oldest)
            oldest.drop()

    def busy(self, connection: Connection) -> None:
        """Note that a request's headers have arrived."""
        self._idle.discard(connection)
        self._pending.discard(connection)

    def announce_close(self) -> None:
        """Add `Connection: close` to each answer from now on."""
        self._announcing = True
        for connection in self._all:
            connection.announce_close()

    def close_idle(self) -> None:
        """Close idle connections at once, and others when they become idle."""
        self._draining = True
        for connection in self._idle:
            connection.close_idle()


def readable(descriptor: int) -> bool:
    """Whether a socket has bytes or an end of stream that the event loop has not read yet."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _quarter_of_descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_IDLE if soft == resource.RLIM_INFINITY else max(soft // 4, 1)
