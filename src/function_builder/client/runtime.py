"""How a client waits and how it speaks HTTP, so that one client runs in both ways.

`on_asyncio` waits in an event loop, and speaks HTTP with httpx2. `blocking` waits in its thread.
Its awaitables are done when they are awaited, so no event loop is needed. A short process, such as
the command, starts faster without asyncio and httpx2.

The errors of an exchange::

    BrokenExchange       a request or its answer ended early
    ├── NoConnection     no connection, or TLS failed; the cause says why
    ├── ConnectTimeout   no connection in time
    ├── ProxyRefused     a proxy did not connect
    ├── SilentPeer       nothing was received, or could be sent, for too long
    └── ConnectionLost   a connection ended early
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import ssl

_T = TypeVar("_T")


class BrokenExchange(Exception):
    """A request or its answer ended early."""


class NoConnection(BrokenExchange):
    """No connection, or TLS failed."""


class ConnectTimeout(BrokenExchange):
    """No connection in time."""


class ProxyRefused(BrokenExchange):
    """A proxy did not connect; `str()` is its answer."""


class SilentPeer(BrokenExchange):
    """Nothing was received, or could be sent, for too long."""


class ConnectionLost(BrokenExchange):
    """A connection ended before the answer did."""


class Request(NamedTuple):
    """A request.

    Attributes:
        method: such as GET.
        url: without credentials.
        headers: beside those that HTTP itself needs.
        body: the body's parts; None without one.
        on_part: called with the bytes of each part that was sent.
        limited: whether a silence ends the wait for the answer.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: Iterator[bytes] | None = None
    on_part: Callable[[int], None] | None = None
    limited: bool = True


class Answer(Protocol):
    """An answer whose body has not been read. `aread` and `aiter_bytes` raise BrokenExchange."""

    @property
    def request(self) -> Request:
        """The request that it answers."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, by their names in lower case."""

    async def aread(self) -> bytes:
        """The whole body."""

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """The body, as it is received."""

    async def aclose(self) -> None:
        """Close the connection."""


class Network(Protocol):
    """Sends requests."""

    async def send(self, request: Request) -> Answer:
        """Send a request, and return its answer as soon as its headers are there.

        The answer has to be closed.

        Raises:
            BrokenExchange: no answer.
        """

    async def close(self) -> None:
        """Close all connections."""


class NetworkSettings(NamedTuple):
    """How requests are sent.

    Attributes:
        tls: the context for https; None where the builder's address is http.
        connect_timeout: seconds in which a connection must be made.
        read_timeout: seconds of silence that end a request.
    """

    tls: ssl.SSLContext | None
    connect_timeout: float
    read_timeout: float


class Runtime(Protocol):
    """How a client waits."""

    async def call(self, function: Callable[[], _T]) -> _T:
        """Call a function that blocks."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def calling_back(self) -> Callable[..., object]:
        """What a function of `call` calls back with: it is given a function and its arguments."""

    def network(self, settings: NetworkSettings) -> Network:
        """What sends a client's requests.

        Raises:
            ValueError: the proxy that the environment names is not an address.
        """
