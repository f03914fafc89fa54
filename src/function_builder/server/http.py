"""HTTP/1.1 by uvicorn, with bounds on what a client sends beside bodies, and leaves unread."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from function_builder.server.connections import Connections, readable
from function_builder.server.upgrades import UpgradeFilter

MAX_HEAD_BYTES: Final = 64 * 1024
"""As many bytes may come without any of a body among them: headers, trailers, chunks' framing."""

HEAD_SECONDS: Final = 30.0
"""How long a connection may take until a request's headers are there."""

READ_SECONDS: Final = 300.0
"""How long a client may take nothing of what was written to it.

A reader may look at a page of the log in a pager for this long; then it is disconnected.
"""


class BoundedHTTP(HttpToolsProtocol):
    """uvicorn's protocol, which by itself takes headers without end, and waits for them for ever.

    Nothing is signed at that point, so any client could fill the memory, or hold every file
    descriptor. Nor does it mind a client that leaves its answer unread: the answer would lie
    here for ever.

    A request that is sent behind another, before that one is answered, is not answered at all: the
    connection ends with the first answer, as RFC 9112, 9.3.2, lets a server do. uvicorn would keep
    it, and stop to read; then a disconnect of the first one's client would not be noticed.

    Its timer of idle connections is replaced: any byte ends that, also one that belongs to no
    request, and no other timer followed.

    Args:
        connections: what is known of all connections.
        arguments: uvicorn's.
    """

    def __init__(self, connections: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._connections = connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._bodiless = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._whole = True
        self._deaf = False
        self._upgrades = UpgradeFilter()
        self._connections.opened(self)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._head_is_here()
        self._wake()
        self._connections.lost(self)
        self._expect_no_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless too many of them are no body's."""
        self._bodiless += len(data)
        if not self._deaf:
            super().data_received(self._upgrades.pass_on(data))
        if self._bodiless <= MAX_HEAD_BYTES or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.send_400_response(f"The headers are longer than {MAX_HEAD_BYTES} bytes.")
        else:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._deaf = True
            self.cycle.keep_alive = False
        else:
            self._wake()
            self._whole = False
            self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's headers are here."""
        if self._deaf:
            return
        self._bodiless = 0
        self._head_is_here()
        super().on_headers_complete()
        if self._connections.announcing:
            self.announce_close()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        if self._deaf:
            return
        self._bodiless = 0
        held = cast("bytes | bytearray", self.cycle.body)
        if not held:
            # uvicorn's bytearray would take a copy and give another; with nothing but bytes in it
            # the piece is passed along as it is.
            self.cycle.body = b""  # type: ignore[assignment]
        elif isinstance(held, bytes):
            # One read may bring forty thousand chunks: bytes would be copied at each.
            self.cycle.body = bytearray(held)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's last byte."""
        self._upgrades.expect_headers()
        if self._deaf:
            return
        self._bodiless = 0
        self._whole = True
        super().on_message_complete()
        if self.cycle.response_complete:
            self._rest()

    def on_response_complete(self) -> None:
        """All of an answer is written, and maybe not read."""
        super().on_response_complete()
        self._expect_reader()
        self._unset_keepalive_if_required()
        if self._whole:
            self._rest()
        else:
            # The rest of a body that the answer did not wait for has as long as headers have.
            self._expect_head()

    def announce_close(self) -> None:
        """Let the answer under way, if it has not begun, say that it is the last."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def close_idle(self) -> None:
        """Close the connection, unless a request has arrived."""
        self._wake()
        if self.transport.is_closing():
            return
        if readable(self.transport.get_extra_info("socket").fileno()):
            # It is read next. Bytes that begin no request leave the connection idle.
            self._resting = self.loop.call_later(1, self.close_idle)
        else:
            self.transport.close()

    def _rest(self) -> None:
        self._head_is_here()
        self._wake()
        if not self.transport.is_closing():
            self._resting = self.loop.call_later(self._connections.keep_alive, self.close_idle)
            self._connections.idle(self)

    def _wake(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        self._connections.busy(self)

    def pause_writing(self) -> None:
        """More is written than the client has taken so far."""
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        """The client has taken most of it."""
        self._expect_no_reader()
        super().resume_writing()

    def _expect_reader(self) -> None:
        self._expect_no_reader()
        unread = self.transport.get_write_buffer_size()
        if unread:
            self._reading = self.loop.call_later(READ_SECONDS, self._look_for_reader, unread)

    def _look_for_reader(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._expect_reader()
        else:
            self.transport.abort()

    def _expect_no_reader(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _head_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
