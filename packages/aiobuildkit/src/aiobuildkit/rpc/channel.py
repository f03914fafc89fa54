"""The gRPC calls of one HTTP/2 connection: asyncio around `http2`, but no sockets.

A Channel gets the bytes that its carrier reads, and returns the bytes that the carrier must write.
The carrier is a socket for the connection to BuildKit (`connection.py`), and a call on that
connection for the session inside it (`session.py`), so both share this code. The bytes that many
tasks send during one turn of the event loop are returned in one piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from aiobuildkit.errors import BuildKitError, ConnectionLost, ProtocolError
from aiobuildkit.http2 import connection as http2
from aiobuildkit.rpc import framing
from aiobuildkit.rpc.stream import HIGH_WATER, ClientStream, ServedStream

__all__ = ["Channel"]


class Channel:
    """One end of an HTTP/2 connection.

    Args:
        core: the protocol, as client or as server.
        scheme: of requests, for a client.
        authority: of requests, for a client.
        accept: called with each call of the peer, for a server.

    Attributes:
        lost: why no call can be made or answered any more; None while it can.
        ready: done when the peer has sent its settings.
    """

    def __init__(
        self,
        core: http2.HTTP2,
        *,
        scheme: str = "http",
        authority: str = "localhost",
        accept: Callable[[ServedStream], None] | None = None,
    ) -> None:
        self._core = core
        self._scheme = scheme
        self._authority = authority
        self._accept = accept
        self._loop = asyncio.get_running_loop()
        # The calls that have not ended, by the number of their stream.
        self._streams: dict[int, ClientStream | ServedStream] = {}
        # Senders that wait until their stream, whose number is the value, has fewer unsent bytes.
        self._drains: dict[asyncio.Future[None], int] = {}
        # Done when there are bytes to send; only the carrier's writer waits for it.
        self._sendable: asyncio.Future[None] | None = None
        # Why there can be no new calls, after a graceful GOAWAY.
        self._going_away: ConnectionLost | None = None
        self.lost: BuildKitError | None = None
        self.ready: asyncio.Future[None] = self._loop.create_future()

    def open(self, path: str, metadata: Iterable[tuple[str, str]] = ()) -> ClientStream:
        """Make a call.

        Raises:
            ConnectionLost: the connection was lost, or the peer accepts no new calls.
            ProtocolError: the peer violated the protocol, or accepts no more calls at a time.
        """
        unusable = self.lost or self._going_away
        if unusable is not None:
            raise unusable
        stream_id = self._core.open(
            framing.request_headers(
                path, scheme=self._scheme, authority=self._authority, metadata=metadata
            )
        )
        stream = ClientStream(self, stream_id)
        self._streams[stream_id] = stream
        self._wake_writer()
        return stream

    def receive_data(self, data: bytes) -> None:
        """Receive bytes from the carrier; the streams get the events in them."""
        if self.lost is not None:
            return
        try:
            for event in self._core.receive_data(data):
                self._handle(event)
        except ProtocolError as error:
            self.lose(error)
        self._wake_writer()

    async def data_to_send(self) -> bytes:
        """Wait for bytes to send, and return them; b"" after the end."""
        while not (data := self._core.data_to_send()) and self.lost is None:
            self._sendable = self._loop.create_future()
            await self._sendable
        self._wake_senders()
        return data

    def data_to_send_nowait(self) -> bytes:
        """Return the bytes that can be sent now; may be empty."""
        return self._core.data_to_send()

    def lose(self, error: BuildKitError) -> None:
        """End every call, because the carrier was lost or the peer violated the protocol."""
        if self.lost is not None:
            return
        self.lost = error
        for stream in self._streams.values():
            stream.fail(error)
        self._streams.clear()
        self._wake_senders()
        self._wake_writer()
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # a failure that no caller awaits is not logged

    # The StreamTransport of the streams.

    def unsent(self, stream_id: int) -> int:
        """Bytes of a stream that have not been sent."""
        return self._core.unsent(stream_id)

    async def drained(self, stream_id: int) -> None:
        """Wait until a stream has less than HIGH_WATER unsent bytes, or is closed."""
        drain = self._loop.create_future()
        self._drains[drain] = stream_id
        await drain

    def respond(self, stream_id: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send a response's headers."""
        self._core.respond(stream_id, headers)

    def send(self, stream_id: int, *data: bytes) -> None:
        """Queue DATA."""
        self._core.send(stream_id, *data)
        self._wake_writer()

    def end(self, stream_id: int, trailers: Sequence[tuple[bytes, bytes]] | None = None) -> None:
        """Half-close a stream after its queued data; trailers end the call."""
        if trailers is not None:
            self._streams.pop(stream_id, None)
        self._core.end(stream_id, trailers)
        self._wake_writer()

    def reset(self, stream_id: int) -> None:
        """Reset a stream."""
        self._streams.pop(stream_id, None)
        if self.lost is None:
            self._core.reset(stream_id)
        self._wake_senders()
        self._wake_writer()

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Return bytes to a stream's window, so that the peer can send more."""
        if self.lost is None and self._core.acknowledge(stream_id, size):
            self._wake_writer()

    # Events from the peer.

    def _handle(self, event: http2.Event) -> None:
        match event:
            case http2.DataReceived(stream_id=stream_id) if stream := self._streams.get(stream_id):
                stream.data_received(event.data, event.size)
            case http2.HeadersReceived():
                self._headers_received(event)
            case http2.StreamEnded(stream_id=stream_id) if stream := self._streams.get(stream_id):
                stream.ended()
            case http2.StreamReset(stream_id=stream_id) if stream := self._streams.pop(
                stream_id, None
            ):
                stream.reset(event.code)
                self._wake_senders()
            case http2.SettingsReceived() if not self.ready.done():
                self.ready.set_result(None)
            case http2.GoAwayReceived():
                self._goaway_received(event)

    def _headers_received(self, event: http2.HeadersReceived) -> None:
        if event.opened and self._accept is not None:
            served = ServedStream(self, event.stream_id, event.headers)
            self._streams[event.stream_id] = served
            self._accept(served)
            return
        stream = self._streams.get(event.stream_id)
        if isinstance(stream, ClientStream):
            stream.headers_received(event.headers)

    def _goaway_received(self, event: http2.GoAwayReceived) -> None:
        reason = f": {event.reason}" if event.reason else ""
        error = ConnectionLost(
            f"BuildKit is closing the connection (HTTP/2 error code {event.code}{reason})"
        )
        if event.graceful:
            self._going_away = error
        else:
            self.lose(error)

    def _wake_senders(self) -> None:
        for drain, stream_id in tuple(self._drains.items()):
            if self.lost is not None or self.unsent(stream_id) < HIGH_WATER:
                del self._drains[drain]
                if not drain.done():
                    drain.set_result(None)

    def _wake_writer(self) -> None:
        if self._sendable is not None and not self._sendable.done():
            self._sendable.set_result(None)
