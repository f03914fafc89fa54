"""HTTP connections between two requests: how long they are kept, how many, and how they end.

A proxy sends a request on a connection that it believes open. If the builder closes the connection
at that moment, the proxy cannot know whether the request was begun: it does not send a POST again,
and its client gets a 502. So the builder keeps idle connections longer than its peers do, and
announces an end with `Connection: close` where it can (RFC 9112, 9.6).
"""

from __future__ import annotations

import resource
import select
from typing import Final, Protocol

MOST_IDLE: Final = 1000
"""More idle connections are not kept: each takes a file descriptor and about 10 kB."""


class Connection(Protocol):
    """What is asked of a connection."""

    def announce_close(self) -> None:
        """Let the answer under way, if it has not begun, say that it is the last."""

    def close_idle(self) -> None:
        """Close it, unless a request has arrived."""


class Connections:
    """The connections of one builder, on all of its ports.

    Args:
        keep_alive: seconds that an idle one is kept; 0: each answer ends its connection.
        most_idle: beyond it the one that has been idle longest is closed; by default 1000, or a
            quarter of the process's file descriptors if those are fewer.
    """

    def __init__(self, keep_alive: float, most_idle: int | None = None) -> None:
        self.keep_alive = keep_alive
        self._most_idle = _quarter_of_descriptors() if most_idle is None else most_idle
        self._all: set[Connection] = set()
        # A dictionary for its order: the first has been idle longest.
        self._idle: dict[Connection, None] = {}
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
        self._idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """Note that a connection waits for its next request."""
        self._idle[connection] = None
        if self._draining:
            connection.close_idle()
        elif len(self._idle) > self._most_idle:
            longest = next(iter(self._idle))
            del self._idle[longest]
            longest.close_idle()

    def busy(self, connection: Connection) -> None:
        """Note that a request has begun."""
        self._idle.pop(connection, None)

    def announce_close(self) -> None:
        """From now on each answer says that it is its connection's last."""
        self._announcing = True
        for connection in self._all:
            connection.announce_close()

    def close_idle(self) -> None:
        """Close those that are idle at once, and others as soon as they are."""
        self._draining = True
        for connection in list(self._idle):
            connection.close_idle()


def readable(descriptor: int) -> bool:
    """Whether bytes, or an end, wait in a socket: timers run before the event loop reads it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _quarter_of_descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_IDLE if soft == resource.RLIM_INFINITY else min(MOST_IDLE, max(soft // 4, 1))
