"""One POST to a URL that a client chose, to hosts and addresses that the operator allows.

A name is resolved once for each connection, and each of its addresses is checked. The connection is
made to a checked address, so DNS that changes its answer in between has no effect. `Host` and the
name in TLS are those of the URL. Redirects are not followed. Proxies of the environment are not
used, because the builder cannot check the address that a proxy connects to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, TypeAlias

import httpcore2

from function_builder.contract.callback_url import CallbackHosts, CallbackURL
from function_builder.contract.public_addresses import Address

ANSWER_SECONDS: Final = 20.0
"""From the lookup of the name to the end of the answer's head."""

CONNECT_SECONDS: Final = 5.0
"""For each address of a name, so that there is time to try the next address."""

BODY_SECONDS: Final = 2.0
"""How long the body of an answer is read and discarded, because only its status matters."""

MAX_ANSWER_BYTES: Final = 64 * 1024
"""An answer's head and body together; beyond it the connection is closed."""

_MAX_READ_BYTES: Final = 4096
"""Bytes parsed between two turns of the event loop, because tiny chunks take long to parse."""

MAX_LOOKUPS: Final = 16
"""Concurrent lookups of names."""

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Gives the addresses of a name for a port; raises OSError if there are none."""


class Answer(NamedTuple):
    """A receiver's answer.

    Attributes:
        status: its code.
        retry_after: the seconds of `Retry-After`; None without one.
    """

    status: int
    retry_after: float | None


class DeliveryError(Exception):
    """There was no answer; the text says why, without the URL's path and query."""


class Forbidden(DeliveryError):
    """The name has no address that callbacks may be sent to."""


class Outbound:
    """Sends callbacks.

    Args:
        hosts: where callbacks may be sent to.
        resolve: looks names up; None: the system's resolver.
        trust: the authorities for TLS; None: the system's, or those of `SSL_CERT_FILE`.
    """

    def __init__(
        self,
        hosts: CallbackHosts,
        *,
        resolve: Resolver | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._backend = _GuardedBackend(hosts, resolve or SystemResolver())
        self._trust = trust

    async def post(self, url: CallbackURL, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send one request on a connection of its own.

        Raises:
            Forbidden: no address of the host is allowed.
            DeliveryError: there was no answer.
        """
        if self._trust is None:
            self._trust = await asyncio.to_thread(_system_trust)
        target = httpcore2.URL(
            scheme=url.scheme, host=url.host, port=url.port, target=url.target.encode()
        )
        sent = [("Host", url.authority), *headers.items(), ("Connection", "close")]
        answer: Answer | None = None
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS) as limit,
                httpcore2.AsyncHTTPConnection(
                    target.origin, self._trust, network_backend=self._backend
                ) as connection,
                connection.stream("POST", target, headers=sent, content=body) as response,
            ):
                answer = Answer(response.status, _retry_after(response.headers))
                limit.reschedule(asyncio.get_running_loop().time() + BODY_SECONDS)
                async for _ in response.aiter_stream():
                    pass
        except (*_FAILURES, OSError) as error:
            # Many receivers log an error if the connection is closed while they answer, so the body
            # is read. A failure of this has no effect.
            if answer is None:
                raise _delivery_error(error) from error
        return answer


_FAILURES: Final = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    TimeoutError,
)


def _delivery_error(error: Exception) -> DeliveryError:
    if isinstance(error, TimeoutError | httpcore2.TimeoutException):
        return DeliveryError(f"no answer within {ANSWER_SECONDS:.0f} s")
    return DeliveryError(str(error) or type(error).__name__)


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """The seconds of `Retry-After`, a number or a date (RFC 9110, 10.2.3)."""
    values = [value for name, value in headers if name.lower() == b"retry-after"]
    text = values[0].decode("latin-1").strip() if values else ""
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _system_trust() -> ssl.SSLContext:
    trust = ssl.create_default_context()
    # As in other HTTP clients: Python 3.13 and newer refuse certificates of private authorities
    # that lack an extension.
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return trust


class SystemResolver:
    """Looks names up with the system's resolver, each in a thread of its own.

    The threads of the event loop are not used, because a client that names hosts whose DNS does not
    answer would block all of them. These are daemon threads, which do not delay the process's end.
    """

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_LOOKUPS)

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """The addresses of a name, in the resolver's order."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Sequence[Address]] = loop.create_future()

        def end(addresses: Sequence[Address], error: OSError | None) -> None:
            # Also after a cancelled lookup, because its thread runs until then.
            self._places.release()
            if found.done():
                return
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

        def look_up() -> None:
            addresses: Sequence[Address] = ()
            failure: OSError | None = None
            try:
                answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                addresses = [ip_address(answer[4][0]) for answer in answers]
            except (OSError, UnicodeError) as error:
                failure = OSError(f"the name cannot be resolved: {_words(error)}")
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(end, addresses, failure)

        threading.Thread(target=look_up, name="callback-dns", daemon=True).start()
        return await found


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to the allowed addresses of a name, one after the other."""

    def __init__(self, hosts: CallbackHosts, resolve: Resolver) -> None:
        self._hosts = hosts
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 (the signature is httpcore's)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address that is allowed and answers."""
        refused, failure = "", Exception("the name has no address")
        for address in await self._addresses(host, port):
            if kind := self._hosts.refusal(address, port):
                refused = f"{address} is {kind}, which callback_hosts does not list"
                continue
            try:
                stream = await self._network.connect_tcp(
                    str(address), port, CONNECT_SECONDS, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _BoundedStream(stream, [MAX_ANSWER_BYTES])
        if refused and not isinstance(failure, httpcore2.ConnectError | httpcore2.ConnectTimeout):
            raise Forbidden(refused)
        raise httpcore2.ConnectError(_connect_words(failure)) from failure

    async def _addresses(self, host: str, port: int) -> Sequence[Address]:
        try:
            return [ip_address(host)]
        except ValueError:
            return await self._resolve(host, port)


def _connect_words(error: BaseException) -> str:
    if isinstance(error, httpcore2.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:.0f} s"
    while error.__cause__ is not None:  # anyio's says only that every attempt failed
        error = error.__cause__
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else str(error)


class _BoundedStream(httpcore2.AsyncNetworkStream):
    """A connection that fails after a number of bytes, also before a final status.

    Args:
        stream: the connection.
        left: the bytes that may still be read, in a list that all layers of TLS share.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream, left: list[int]) -> None:
        self._stream = stream
        self._left = left

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 (httpcore's)
        """Read some bytes."""
        if self._left[0] <= 0:
            raise httpcore2.ReadError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        data = await self._stream.read(min(max_bytes, _MAX_READ_BYTES, self._left[0]), timeout)
        self._left[0] -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 (httpcore's)
        """Write all bytes."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's)
    ) -> httpcore2.AsyncNetworkStream:
        """Start TLS."""
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _BoundedStream(stream, self._left)

    def get_extra_info(self, info: str) -> Any:
        """Extra information about the connection."""
        return self._stream.get_extra_info(info)
