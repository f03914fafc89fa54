"""A connection to a BuildKit daemon: a unix socket, TCP, or TCP with TLS, under a Channel."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import cast

from aiobuildkit.errors import BuildKitError, ConnectionFailed, ConnectionLost
from aiobuildkit.hostport import HostPort
from aiobuildkit.http2.connection import HTTP2
from aiobuildkit.rpc.channel import Channel

__all__ = ["Address", "Connection", "TLSConfig", "connect"]


@dataclass(frozen=True, slots=True)
class TLSConfig:
    """TLS to a daemon on TCP; with `cert` and `key`, mutual.

    The files are read for each connection, so a rotation needs no restart.

    Attributes:
        ca: PEM file of the authorities that sign the daemon's certificate; None: the system's.
        cert: PEM file of our certificate, with its chain.
        key: PEM file of its private key.
        server_name: the name in the daemon's certificate; None: the address's host.
    """

    ca: str | PathLike[str] | None = None
    cert: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None
    server_name: str | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            OSError: a file cannot be read, or is not a certificate or key.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise _unusable(f"the authority's certificate {self.ca}", error) from error
        # Python 3.13 and newer require extensions (RFC 5280, section 4.2.1) that certificates of
        # common guides lack, including Docker's. Go and other clients of BuildKit do not.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key)
            except OSError as error:
                files = f"our certificate {self.cert} with the key {self.key or self.cert}"
                raise _unusable(files, error) from error
        context.set_alpn_protocols(["h2"])
        return context


def _unusable(what: str, error: OSError) -> OSError:
    # OpenSSL's message does not name the file.
    return OSError(f"{what} cannot be used: {error.strerror or error}")


@dataclass(frozen=True, slots=True)
class Address:
    """A daemon's address: the path of a unix socket, or a host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, address: str) -> Address:
        """Read `unix:///run/buildkit/buildkitd.sock` or `tcp://host:1234`.

        Raises:
            ValueError: it has another form.
        """
        path = address.removeprefix("unix://")
        if path and path != address:
            return cls(path=path)
        where = address.removeprefix("tcp://")
        if where != address:
            with suppress(ValueError):
                host, port = HostPort.parse(where.rstrip("/"))
                if host and port:
                    return cls(host=host.lower(), port=port)
        raise ValueError(f"not an address of BuildKit (unix://PATH or tcp://HOST:PORT): {address}")


class Connection(asyncio.Protocol):
    """The carrier between a socket and its Channel.

    Attributes:
        channel: set when the socket is connected.
        last_heard: the event loop's time of the daemon's last data, in seconds.
    """

    channel: Channel

    def __init__(
        self, *, close_timeout: float, scheme: str = "http", authority: str = "localhost"
    ) -> None:
        self._close_timeout = close_timeout
        self._scheme = scheme
        self._authority = authority
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._resumed: asyncio.Future[None] | None = None
        self.last_heard = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first frames."""
        self._transport = cast("asyncio.Transport", transport)
        self.channel = Channel(HTTP2(client=True), scheme=self._scheme, authority=self._authority)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.channel.lose(ConnectionLost("TLS did not agree on HTTP/2 (ALPN h2)"))
        self._writer = self._loop.create_task(self._write())
        self._writer.add_done_callback(self._written)

    def data_received(self, data: bytes) -> None:
        """Receive bytes from the socket."""
        self.last_heard = self._loop.time()
        self.channel.receive_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the socket."""
        error = ConnectionLost(
            f"the connection to BuildKit was lost: {exc or 'BuildKit closed it'}"
        )
        error.__cause__ = exc
        self.channel.lose(error)
        self.resume_writing()
        self._closed.set_result(None)

    def pause_writing(self) -> None:
        """Stop writing, because the socket's buffer is full."""
        self._resumed = self._loop.create_future()

    def resume_writing(self) -> None:
        """Continue writing."""
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)
        self._resumed = None

    def abort(self, error: BuildKitError) -> None:
        """Close the connection at once; its calls end with the error."""
        self.channel.lose(error)
        self._transport.abort()

    async def close(self) -> None:
        """Send what the peer's windows allow, such as cancellations, and close.

        Sending them may take `close_timeout` seconds.
        """
        self._writer.cancel()
        if not self._transport.is_closing():
            self._transport.write(self.channel.data_to_send_nowait())
        self.channel.lose(ConnectionLost("the connection to BuildKit was closed"))
        self._close_transport()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._close_timeout):
                    await asyncio.shield(self._closed)
        finally:
            # Abort after a timeout or cancellation, because no later code does.
            if not self._closed.done():
                self._transport.abort()
        await asyncio.shield(self._closed)

    async def _write(self) -> None:
        while data := await self.channel.data_to_send():
            self._transport.write(data)
            if self._resumed is not None:
                await self._resumed
        self._close_transport()

    def _close_transport(self) -> None:
        # After a second `close`, asyncio's TLS transport ignores `abort`, or raises AttributeError.
        if not self._transport.is_closing():
            self._transport.close()

    def _written(self, writer: asyncio.Task[None]) -> None:
        error = None if writer.cancelled() else writer.exception()
        if error is not None:
            lost = ConnectionLost(f"the connection to BuildKit broke: {error}")
            lost.__cause__ = error
            self.abort(lost)


@asynccontextmanager
async def connect(
    address: str,
    *,
    tls: TLSConfig | ssl.SSLContext | None = None,
    connect_timeout: float,
    answer_timeout: float | None = None,
    close_timeout: float = 1,
) -> AsyncIterator[Connection]:
    """Connect, and receive the daemon's first HTTP/2 frame, within `connect_timeout` seconds.

    The frame shows that the daemon works and accepts our certificate. With TLS 1.3 a refusal only
    comes after the handshake. With `answer_timeout`, the frame may take so many additional
    seconds after the connection and the TLS handshake.

    Raises:
        ConnectionFailed: the daemon does not run, is not an HTTP/2 server, or TLS failed.
        ValueError: the address is invalid.
    """
    where = Address.parse(address)
    limit = connect_timeout
    try:
        async with asyncio.timeout(limit) as deadline:
            connection = await _dial(where, tls, close_timeout)
            if answer_timeout is not None:
                limit = answer_timeout
                deadline.reschedule(asyncio.get_running_loop().time() + limit)
            await _hear(connection)
    except TimeoutError as error:
        raise ConnectionFailed(address, f"no answer within {limit:g} s") from error
    except (OSError, BuildKitError) as error:
        raise ConnectionFailed(address, str(error)) from error
    try:
        yield connection
    finally:
        await connection.close()


async def _hear(connection: Connection) -> None:
    """Wait for the daemon's first frame; without one, close the connection."""
    try:
        await asyncio.shield(connection.channel.ready)
    except BaseException:
        await connection.close()
        raise


async def _dial(
    where: Address, tls: TLSConfig | ssl.SSLContext | None, close_timeout: float
) -> Connection:
    loop = asyncio.get_running_loop()
    make = partial(Connection, close_timeout=close_timeout)
    if where.path:
        _, connection = await loop.create_unix_connection(make, where.path)
        return connection
    make = partial(make, authority=str(HostPort(where.host, where.port)))
    if tls is None:
        _, connection = await loop.create_connection(make, where.host, where.port)
        return connection
    server_name = tls.server_name if isinstance(tls, TLSConfig) else None
    _, connection = await loop.create_connection(
        partial(make, scheme="https"),
        where.host,
        where.port,
        ssl=await _ssl_context(tls),
        server_hostname=server_name or where.host,
    )
    return connection


async def _ssl_context(tls: TLSConfig | ssl.SSLContext) -> ssl.SSLContext:
    if isinstance(tls, TLSConfig):
        return await asyncio.to_thread(tls.context)
    # Another library with the same context may have set its own protocol since.
    tls.set_alpn_protocols(["h2"])
    return tls
