"""HTTP connections that no proven request holds: how many, for how long, and how they end.

A proxy sends a request on a connection that it believes open. If the builder closes the connection
at that moment, the proxy cannot know whether the request was begun: it does not send a POST again,
and its client gets a 502. So the builder keeps idle connections longer than its peers do, and
announces an end with `Connection: close` where it can (RFC 9112, 9.6).
"""

from __future__ import annotations

import resource
import select
from typing import Final, Protocol

from function_builder.server.crowd import Crowd

MOST_IDLE: Final = 1000
"""More idle connections are not kept: each takes a file descriptor and about 10 kB."""

MOST_PENDING: Final = 1000
"""More connections are not kept whose headers are on their way, or that end: 50 kB each at most."""


class Connection(Protocol):
    """What is asked of a connection.

    Attributes:
        source: what its client's address counts for (`source_of`).
    """

    source: str

    def announce_close(self) -> None:
        """Let the answer under way, if it has not begun, say that it is the last."""

    def close_idle(self) -> None:
        """Close it, unless a request has arrived."""

    def drop(self) -> None:
        """End it at once."""


class Connections:
    """The connections of one builder, on all of its ports.

    One is idle (between two requests), pending (its request's headers are on their way, or it ends)
    or busy: a request's headers are here, and no answer is complete. Idle and pending ones are
    bounded. Beyond the bound, the source that has the most loses its oldest.

    Args:
        keep_alive: seconds that an idle one is kept; 0: each answer ends its connection.
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
        """Note a new connection."""
        self._all.add(connection)

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
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
        """Note that a request's headers are on their way, or that a connection ends."""
        self._pending.add(connection, connection.source)
        if len(self._pending) > self._most_pending:
            oldest = self._pending.oldest_of_largest()
            self._pending.discard(oldest)
            oldest.drop()

    def busy(self, connection: Connection) -> None:
        """Note that a request's headers are here."""
        self._idle.discard(connection)
        self._pending.discard(connection)

    def announce_close(self) -> None:
        """From now on each answer says that it is its connection's last."""
        self._announcing = True
        for connection in self._all:
            connection.announce_close()

    def close_idle(self) -> None:
        """Close those that are idle at once, and others as soon as they are."""
        self._draining = True
        for connection in self._idle:
            connection.close_idle()


def readable(descriptor: int) -> bool:
    """Whether bytes, or an end, wait in a socket: timers run before the event loop reads it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _quarter_of_descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_IDLE if soft == resource.RLIM_INFINITY else max(soft // 4, 1)
