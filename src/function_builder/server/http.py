"""HTTP/1.1 by uvicorn, with bounds on what is not a body."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
"""As many bytes may come without any of a body among them: headers, trailers, chunks' framing."""

HEAD_SECONDS: Final = 30.0
"""How long a connection may take until a request's headers are there."""


class BoundedHTTP(HttpToolsProtocol):
    """uvicorn's protocol, which by itself takes headers without end, and waits for them for ever.

    Nobody has signed anything at that point, so that anybody could fill the memory, or hold every
    file descriptor.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._bodiless = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless too many of them are no body's."""
        self._bodiless += len(data)
        super().data_received(data)
        if self._bodiless <= MAX_HEAD_BYTES or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.send_400_response(f"The headers are longer than {MAX_HEAD_BYTES} bytes.")
        else:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's headers are here."""
        self._bodiless = 0
        self._head_is_here()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._bodiless = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request's last byte."""
        self._bodiless = 0
        super().on_message_complete()

    def _expect_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _head_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
