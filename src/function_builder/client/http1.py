"""HTTP/1.1 on a blocking socket, with one connection for each request (RFC 9112)."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from function_builder.client.runtime import (
    Answer,
    BrokenExchange,
    ConnectionLost,
    ConnectTimeout,
    NetworkSettings,
    NoConnection,
    Request,
    SilentPeer,
)

_READ_BYTES: Final = 64 * 1024
_MAX_HEAD_BYTES: Final = 100 * 1024
_MAX_INFORMATIONAL: Final = 100
_BODYLESS: Final = (204, 304)


class SocketNetwork:
    """Sends requests, each on a connection of its own."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings

    async def close(self) -> None:
        """Do nothing: each answer closes its connection."""

    async def send(self, request: Request) -> Answer:
        """Send a request, and return its answer when its headers are there."""
        answer = _SocketAnswer(request, self._connect(request.url))
        try:
            self._exchange(request, answer)
        except BaseException:
            await answer.aclose()
            raise
        return answer

    def _exchange(self, request: Request, answer: _SocketAnswer) -> None:
        answer.connection.settimeout(self._settings.read_timeout)
        try:
            _send(answer.connection, request)
        except ConnectionLost as error:
            # A server may answer before it has read all of the body, and then close.
            try:
                answer.read_head()
            except NoConnection:
                raise
            except BrokenExchange:
                raise error from error.__cause__
        else:
            answer.connection.settimeout(self._settings.read_timeout if request.limited else None)
            answer.read_head()

    def _connect(self, url: str) -> socket.socket:
        """Connect, with TLS for https.

        Raises:
            ConnectTimeout: it took too long.
            NoConnection: it failed.
        """
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            # In bytes, a host needs no codec for international names, whose import takes 3 ms.
            # (typeshed does not know that `getaddrinfo` takes bytes.)
            address: Any = ((parts.hostname or "").encode("ascii"), port)
            plain = socket.create_connection(address, self._settings.connect_timeout)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._settings.tls is None:
                return plain
            # It closes the plain socket if it fails.
            return self._settings.tls.wrap_socket(plain, server_hostname=parts.hostname)
        except TimeoutError as error:
            raise ConnectTimeout from error
        except OSError as error:
            raise NoConnection(str(error)) from error


class _SocketAnswer:
    """An answer; a body is read to the end of its framing, which must be there.

    Attributes:
        request: that it answers.
        connection: it is received from.
        status_code: the HTTP status; 0 before the head was read.
        headers: by their names in lower case.
    """

    def __init__(self, request: Request, connection: socket.socket) -> None:
        self.request = request
        self.connection = connection
        self.status_code = 0
        self.headers: Mapping[str, str] = {}
        self._held = b""

    def read_head(self) -> None:
        """Read the status and the headers of the final answer.

        Raises:
            BrokenExchange: there is none.
        """
        for _ in range(_MAX_INFORMATIONAL):
            while b"\r\n\r\n" not in self._held:
                if len(self._held) > _MAX_HEAD_BYTES:
                    raise ConnectionLost("the answer's headers are too long")
                self._held += self._receive()
            head, _, self._held = self._held.partition(b"\r\n\r\n")
            status, headers = _parsed(head)
            if status >= 200:
                self.status_code, self.headers = status, headers
                return
        raise ConnectionLost("the answer has too many informational answers")

    async def aread(self) -> bytes:
        """The whole body."""
        return b"".join(self._body())

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        """The body, as it is received."""
        for part in self._body():
            yield part

    async def aclose(self) -> None:
        """Close the connection."""
        self.connection.close()

    def _body(self) -> Iterator[bytes]:
        if self.status_code in _BODYLESS:
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif "content-length" in self.headers:
            yield from self._exactly(_number(self.headers["content-length"], 10))
        else:
            yield self._held
            self._held = b""
            while part := self._receive(at_end=True):
                yield part

    def _chunks(self) -> Iterator[bytes]:
        while size := _number(self._line().partition(b";")[0].strip().decode("latin-1"), 16):
            yield from self._exactly(size)
            if self._line():
                raise ConnectionLost("a chunk of the answer is malformed")
        while self._line():
            pass

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            part, self._held = self._held[:size], self._held[size:]
            if part:
                size -= len(part)
                yield part
            if size:
                self._held = self._receive()

    def _line(self) -> bytes:
        while b"\r\n" not in self._held:
            if len(self._held) > _MAX_HEAD_BYTES:
                raise ConnectionLost("a line of the answer is too long")
            self._held += self._receive()
        line, _, self._held = self._held.partition(b"\r\n")
        return line

    def _receive(self, *, at_end: bool = False) -> bytes:
        with _mapped():
            data = self.connection.recv(_READ_BYTES)
        if not data and not at_end:
            raise ConnectionLost("the connection was closed before the answer's end")
        return data


def _send(connection: socket.socket, request: Request) -> None:
    parts = urlsplit(request.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    given = {name.lower() for name in request.headers}
    own = {"Host": parts.netloc, "Accept": "*/*", "Connection": "close"}
    headers = [each for each in own.items() if each[0].lower() not in given]
    lines = [f"{request.method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in (*headers, *request.headers.items())]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    with _mapped():
        if request.body is None:
            connection.sendall(head)
            return
        for part in request.body:
            connection.sendall(head + part)
            head = b""
            if request.on_part is not None:
                request.on_part(len(part))


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise SilentPeer from error
    except OSError as error:
        import ssl

        # The alert of a server of TLS 1.3 that requires a client certificate.
        is_alert = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)
        raise (NoConnection if is_alert else ConnectionLost)(str(error)) from error


def _parsed(head: bytes) -> tuple[int, Mapping[str, str]]:
    """The status and the headers of an answer's head.

    Raises:
        ConnectionLost: it is not HTTP.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdecimal()):
        raise ConnectionLost("the answer is not HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise ConnectionLost("a header of the answer is malformed")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return int(status), headers


def _number(text: str, base: int) -> int:
    """A length.

    Raises:
        ConnectionLost: it is not one.
    """
    digits = "0123456789abcdef"[:base]
    if not 0 < len(text) <= 16 or text.lower().strip(digits):
        raise ConnectionLost("a length in the answer is malformed")
    return int(text, base)
