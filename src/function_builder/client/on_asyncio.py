"""A client in an event loop of asyncio, which speaks HTTP with httpx2."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import httpx2

from function_builder.client.address import LOCAL_HOSTS
from function_builder.client.runtime import (
    Answer,
    BrokenExchange,
    ConnectionLost,
    ConnectTimeout,
    NetworkSettings,
    NoConnection,
    ProxyRefused,
    Request,
    SilentPeer,
)

_T = TypeVar("_T")

_BROKEN: Final = (
    (httpx2.ConnectTimeout, ConnectTimeout),
    (httpx2.ProxyError, ProxyRefused),
    # The library raises `ssl.SSLError` as it is where TLS's alert comes after the handshake: a
    # server of TLS 1.3 asks for a client certificate then.
    (httpx2.ConnectError, NoConnection),
    (ssl.SSLError, NoConnection),
    (httpx2.TimeoutException, SilentPeer),
    (httpx2.NetworkError, ConnectionLost),
    (httpx2.RemoteProtocolError, ConnectionLost),
    (httpx2.TransportError, BrokenExchange),
)
"""What the library's errors mean; the first that fits counts."""


class OnAsyncio:
    """Waits in the running event loop."""

    async def call(self, function: Callable[[], _T]) -> _T:
        """Call a function in a thread."""
        return await asyncio.to_thread(function)

    async def sleep(self, seconds: float) -> None:
        """Wait, while the loop runs."""
        await asyncio.sleep(seconds)

    def calling_back(self) -> Callable[..., object]:
        """What has the event loop call a function."""
        return asyncio.get_running_loop().call_soon_threadsafe

    def network(self, settings: NetworkSettings) -> HttpxNetwork:
        """Connections of httpx2."""
        return HttpxNetwork(settings)


class HttpxNetwork:
    """Sends requests with httpx2, through the environment's proxy if there is one."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        try:
            self._http = httpx2.AsyncClient(
                mounts={
                    f"all://[{host}]" if ":" in host else f"all://{host}": None
                    for host in LOCAL_HOSTS
                },
                # Loading the system's authorities takes 0.15 s, which plain HTTP need not spend.
                verify=settings.tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                # A kept connection may be closed by a proxy just when it is used again, and a
                # build must not be sent twice to find out.
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            )
        except (httpx2.InvalidURL, ImportError, ValueError):
            # Not the error: it may hold a part of the proxy's password.
            raise ValueError(
                "the proxy that the environment names (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) is not"
                " an http or https address"
            ) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def send(self, request: Request) -> Answer:
        """Send a request, and return its answer when its headers are there."""
        read = self._settings.read_timeout
        built = self._http.build_request(
            request.method,
            request.url,
            content=None if request.body is None else _parts(request),
            headers=request.headers,
            timeout=httpx2.Timeout(
                read,
                connect=self._settings.connect_timeout,
                read=read if request.limited else None,
            ),
        )
        with _mapped():
            return _HttpxAnswer(request, await self._http.send(built, stream=True))


class _HttpxAnswer:
    def __init__(self, request: Request, response: httpx2.Response) -> None:
        self.request = request
        self._response = response
        self.status_code = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def aread(self) -> bytes:
        with _mapped():
            return await self._response.aread()

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        with _mapped():
            async for part in self._response.aiter_bytes():
                yield part

    async def aclose(self) -> None:
        await self._response.aclose()


async def _parts(request: Request) -> AsyncIterator[bytes]:
    assert request.body is not None
    while part := await asyncio.to_thread(next, request.body, b""):
        yield part
        if request.on_part is not None:
            request.on_part(len(part))


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except (httpx2.TransportError, ssl.SSLError) as error:
        kind = next(ours for theirs, ours in _BROKEN if isinstance(error, theirs))
        raise kind(str(error)) from error
