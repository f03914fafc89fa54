"""uvicorn's HTTP/1.1, with a deadline and a limit for each phase of a connection."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from function_builder.server.connections import Connections, readable
from function_builder.server.crowd import source_of
from function_builder.server.h2c import UpgradeFilter
from function_builder.server.request_bounds import BoundError, RequestBounds

HEAD_SECONDS: Final = 30.0
"""From a connection's start, or a request's first byte, until its headers have arrived."""

LINGER_SECONDS: Final = 30.0
"""How long the rest of a request is discarded after its answer.

A client that sends its whole body before it reads would lose the answer to a reset if the
connection were closed while the client sends.
"""

MAX_DISCARDED_BYTES: Final = 256 * 1024
"""The most bytes to discard after a request that is not answered yet, or that cannot be parsed.

The rest of a refused body has no such limit, because it may be refused for its size.
"""

READ_SECONDS: Final = 300.0
"""How long a client may read nothing of its answer before it is disconnected.

A user may look at a page of a log in a pager for minutes.
"""


class BoundedHTTP(HttpToolsProtocol):
    """uvicorn's protocol with bounds.

    uvicorn itself does not limit the size of headers or the time for them. It also keeps an answer
    for a client that does not read it. A client can do this without a signature.

    | phase | deadline | bound |
    |---|---|---|
    | headers | `HEAD_SECONDS` | `MAX_HEAD_BYTES`, `MAX_HEADERS`, `Connections` |
    | body | `upload_timeout` (spool.py) | `MIN_CHUNK_BYTES`, `Uploads` |
    | answer, while the request still arrives | `LINGER_SECONDS` | `Connections` |
    | answer that is not read | `READ_SECONDS` | `UnreadLogs` |
    | between requests | `keep_alive_timeout` | `Connections` |

    If an answer begins before its request has ended, the connection is closed after the answer. The
    rest of the request is discarded without being parsed.

    A pipelined request is not answered: the connection is closed after the first answer, as RFC
    9112, 9.3.2, permits. uvicorn would keep the second request and stop reading, so it would not
    notice that the client disconnects.

    uvicorn's timer for idle connections is replaced, because any byte cancels it, even one that
    does not begin a request.

    Args:
        connections: all connections of the builder.
        arguments: uvicorn's.
    """

    def __init__(self, connections: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._connections = connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self.source = source_of(self.client[0] if self.client else "")
        self._deadline: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._resting: asyncio.TimerHandle | None = None
        # Whether the last request has arrived completely.
        self._whole = True
        # Whether all further bytes are discarded.
        self._discarding = False
        self._discarded = 0
        self._most_discarded = math.inf
        self._lingering = False
        self._keep_alive = False
        self._upgrades = UpgradeFilter()
        self._bounds = RequestBounds()
        self._connections.opened(self)
        self._connections.pending(self)
        self._expect_within(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all timers."""
        self._expect_nothing()
        self._wake()
        self._connections.lost(self)
        self._expect_no_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, within the bounds."""
        if self._discarding:
            self._discarded += len(data)
            if self._discarded > self._most_discarded:
                self.transport.abort()
            return
        self._bounds.receive(len(data))
        try:
            self.parser.feed_data(self._upgrades.pass_on(data))
            self._bounds.check_head()
        except httptools.HttpParserUpgrade:
            # CONNECT: the following bytes would belong to another protocol.
            self._ignore_what_follows()
        except httptools.HttpParserError:
            # Also raised for a second request, which is discarded.
            if not self._discarding:
                self.send_400_response("Invalid HTTP request received.")
        except BoundError as error:
            self.send_400_response(str(error))

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed, or exceeds a bound, and end the connection."""
        if self._discarding or self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        fault = self._bounds.fault or msg
        self.logger.warning(fault)
        text = fault.encode()
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(text), text)
        )
        self._linger(MAX_DISCARDED_BYTES)

    def on_message_begin(self) -> None:
        """A request's first byte has arrived."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._ignore_what_follows()
            raise BoundError
        self._wake()
        self._whole = False
        self._connections.pending(self)
        self._expect_within(HEAD_SECONDS)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header or a trailer has arrived."""
        self._bounds.header()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """All of the request's headers have arrived."""
        self._expect_nothing()
        self._connections.busy(self)
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", _AnswerTransport(self))
        # An answer that begins before the request has ended has `Connection: close`.
        self._keep_alive, self.cycle.keep_alive = self.cycle.keep_alive, False

    def on_body(self, body: bytes) -> None:
        """A piece of a body has arrived: a chunk, or the bytes of one read."""
        self._bounds.chunk(len(body))
        held = cast("bytes | bytearray", self.cycle.body)
        if not held:
            # uvicorn's bytearray would copy the piece twice; added to empty bytes it is not copied.
            self.cycle.body = b""  # type: ignore[assignment]
        elif isinstance(held, bytes):
            # A bytearray, because bytes would be copied for each of a read's many chunks.
            self.cycle.body = bytearray(held)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request's last byte has arrived."""
        self._upgrades.expect_headers()
        self._bounds = RequestBounds()
        self._whole = True
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive and not self._connections.announcing
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """All of an answer is written, but the client may not have read it."""
        super().on_response_complete()
        self._expect_reader()
        self._unset_keepalive_if_required()
        if not self.transport.is_closing() and not self._lingering:
            self._rest()

    def announce_close(self) -> None:
        """Add `Connection: close` to the next answer, if its headers are not sent yet."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close the connection, at once or after its answer."""
        if self._lingering:
            self.transport.close()
        else:
            super().shutdown()

    def close_idle(self) -> None:
        """Close the connection, unless a request has arrived."""
        self._wake()
        if self.transport.is_closing():
            return
        if readable(self.transport.get_extra_info("socket").fileno()):
            # The event loop reads them next. If no request starts with them, it is still idle.
            self._resting = self.loop.call_later(1, self.close_idle)
        else:
            self.transport.close()

    def drop(self) -> None:
        """Close the connection at once, because the limit of connections is reached."""
        self.transport.abort()

    def end_answer(self) -> None:
        """Close the connection after its last answer, when the rest of its request is read."""
        if not self._whole or self._discarding:
            self._linger()
        else:
            self.transport.close()
            # It remains until the client has read the answer.
            self._connections.pending(self)

    def _linger(self, most: float = math.inf) -> None:
        """Let the client read its answer although it still sends, then close (RFC 9112, 9.6)."""
        self._discarding = self._lingering = True
        self._most_discarded, self._discarded = most, 0
        self._wake()
        self.flow.resume_reading()
        self.transport.write_eof()
        self._connections.pending(self)
        self._expect_nothing()
        self._expect_within(LINGER_SECONDS)

    def _ignore_what_follows(self) -> None:
        self._discarding = True
        self._most_discarded, self._discarded = MAX_DISCARDED_BYTES, 0
        self._keep_alive = self.cycle.keep_alive = False

    def _rest(self) -> None:
        self._wake()
        self._resting = self.loop.call_later(self._connections.keep_alive, self.close_idle)
        self._connections.idle(self)

    def _wake(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._connections.busy(self)

    def pause_writing(self) -> None:
        """The client reads slower than the answer is written."""
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        """The client has read most of the answer."""
        self._expect_no_reader()
        super().resume_writing()

    def _expect_reader(self) -> None:
        self._expect_no_reader()
        unread = self.transport.get_write_buffer_size()
        if unread:
            self._reading = self.loop.call_later(READ_SECONDS, self._check_reader, unread)

    def _check_reader(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._expect_reader()
        else:
            self.transport.abort()

    def _expect_no_reader(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _expect_within(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _AnswerTransport:
    """The transport of an answer; closing it may wait for the rest of the request."""

    def __init__(self, connection: BoundedHTTP) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        """Write a piece."""
        self._connection.transport.write(data)

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._connection.transport.is_closing()

    def close(self) -> None:
        """End the answer, and close the connection."""
        self._connection.end_answer()
