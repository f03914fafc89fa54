"""One HTTP/2 connection, either side of it, without I/O: bytes in by feed, out by take.

``h2`` keeps the protocol's states and the header compression. This module adds what gRPC
with BuildKit needs: windows that are large and replenished by the quarter, header lists of
megabytes (a failed build's trailers carry its Dockerfile), data queued per stream and sent
as the peer's windows allow, one frame of each stream in turn, and calls that may finish
after a graceful GOAWAY. Nothing but this interface is known to the rest of the package, so
that ``h2`` could be replaced.

What is sent to a stream that is gone is dropped without a word: the peer may reset a stream
at any moment, so no caller could avoid it, and the Reset event tells it anyway.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError as H2ProtocolError
from h2.settings import SettingCodes, Settings

from aiobuildkit.errors import ProtocolError
from aiobuildkit.wire.frames import FrameBuffer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

__all__ = [
    "HTTP2",
    "Data",
    "Ended",
    "ErrorCodes",
    "Event",
    "GoingAway",
    "HeadersReceived",
    "Reset",
    "SettingsReceived",
]

WINDOW = 4 * 1024 * 1024
"""Bytes that the peer may send ahead, on each stream and, on top of 64 KiB, on all."""

MAX_HEADER_LIST = 8 * 1024 * 1024
"""Bytes. BuildKit's error details hold the Dockerfile, in base64, more than once."""


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """The peer has spoken HTTP/2, and said what it allows."""


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """Headers or trailers of a stream; ``opened`` when they opened it."""

    stream_id: int
    headers: Headers
    opened: bool


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a stream's body. ``size`` is what it took of the flow-control windows."""

    stream_id: int
    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The peer will send no more on this stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer dropped a stream, both ways."""

    stream_id: int
    code: int


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The peer takes no new streams; ``graceful`` if those that are open may finish."""

    code: int
    reason: str
    graceful: bool


Event: TypeAlias = SettingsReceived | HeadersReceived | Data | Ended | Reset | GoingAway


@dataclass(slots=True)
class _Outgoing:
    """What a stream has yet to send: data, then perhaps its end, perhaps with trailers."""

    data: bytearray
    ended: bool = False
    trailers: Headers | None = None


class HTTP2:
    """The protocol of one connection, as client (streams are opened) or as server.

    Raises:
        ProtocolError: from feed, when the peer broke HTTP/2. The connection is over then;
            take still has the GOAWAY that tells the peer why.
    """

    def __init__(self, *, client: bool) -> None:
        # Validation is the larger part of h2's work on headers, and gRPC's are few and known.
        self._h2 = H2Connection(
            H2Configuration(
                client_side=client,
                header_encoding=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self._frames = FrameBuffer(self._h2, server=not client, max_header_block=MAX_HEADER_LIST)
        self._h2.incoming_buffer = self._frames
        self._h2.local_settings = Settings(
            client=client,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                SettingCodes.MAX_CONCURRENT_STREAMS: 100,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST,
            },
        )
        self._h2.decoder.max_header_list_size = MAX_HEADER_LIST
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW)
        self._outgoing: dict[int, _Outgoing] = {}
        self._receiving: set[int] = set()
        self._consumed: dict[int, int] = {}
        self._received = 0

    def open(self, headers: Headers) -> int:
        """Open a stream, as a client, and return its number.

        Raises:
            ProtocolError: no stream can be opened (any more).
        """
        try:
            stream_id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream_id, headers)
        except H2ProtocolError as error:
            raise ProtocolError(f"no stream can be opened: {error}") from error
        self._outgoing[stream_id] = _Outgoing(bytearray())
        self._receiving.add(stream_id)
        return stream_id

    def respond(self, stream_id: int, headers: Headers) -> None:
        """Send the headers of a response, as a server, before anything else."""
        if stream_id in self._outgoing:
            self._h2.send_headers(stream_id, headers)

    def send(self, stream_id: int, data: bytes) -> None:
        """Queue data; take sends it as the peer's windows allow."""
        outgoing = self._outgoing.get(stream_id)
        if outgoing is not None and not outgoing.ended:
            outgoing.data += data

    def end(self, stream_id: int, trailers: Headers | None = None) -> None:
        """Half-close a stream once its queued data is sent, with trailers if given."""
        outgoing = self._outgoing.get(stream_id)
        if outgoing is not None:
            outgoing.ended = True
            outgoing.trailers = trailers

    def reset(self, stream_id: int, code: int = ErrorCodes.CANCEL) -> None:
        """Drop a stream both ways; queued data is thrown away."""
        if stream_id in self._outgoing or stream_id in self._receiving:
            self._forget(stream_id)
            self._h2.reset_stream(stream_id, code)

    def consumed(self, stream_id: int, size: int) -> bool:
        """Say that a Data event's bytes need no memory any more; True if take has to tell it."""
        if stream_id not in self._receiving:
            return False
        total = self._consumed.get(stream_id, 0) + size
        due = total >= WINDOW // 4
        if due:
            self._h2.increment_flow_control_window(total, stream_id)
            total = 0
        self._consumed[stream_id] = total
        return due

    def unsent(self, stream_id: int) -> int:
        """Bytes queued on a stream that take has not yet returned."""
        outgoing = self._outgoing.get(stream_id)
        return len(outgoing.data) if outgoing is not None else 0

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes from the peer, split anywhere, and return what they mean."""
        try:
            received = self._h2.receive_data(data)
        except H2ProtocolError as error:
            self._outgoing.clear()  # h2 takes nothing more, and its GOAWAY is to be sent
            raise ProtocolError(f"the peer broke HTTP/2: {error}") from error
        events = [event for each in received for event in self._translate(each)]
        if self._received >= WINDOW // 4:
            # The connection's window is not tied to what is consumed: one stream that nobody
            # reads must not stop the others, and the streams' own windows bound the memory.
            self._h2.increment_flow_control_window(self._received)
            self._received = 0
        for frame, graceful in self._frames.goodbyes:
            reason = frame.additional_data.decode("utf-8", "replace")
            events.append(GoingAway(frame.error_code, reason, graceful))
        self._frames.goodbyes.clear()
        return events

    def take(self) -> bytes:
        """Return what is to be sent now; the rest waits for the peer's windows."""
        if self._outgoing:
            self._send_in_turn()
        return self._h2.data_to_send()

    def _send_in_turn(self) -> None:
        turn = deque(self._outgoing)
        while turn:
            stream_id = turn.popleft()
            outgoing = self._outgoing[stream_id]
            if outgoing.data and self._send_frame(stream_id, outgoing.data):
                turn.append(stream_id)
            elif outgoing.ended and not outgoing.data:
                del self._outgoing[stream_id]
                if outgoing.trailers is None:
                    self._h2.end_stream(stream_id)
                else:
                    self._h2.send_headers(stream_id, outgoing.trailers, end_stream=True)

    def _send_frame(self, stream_id: int, data: bytearray) -> bool:
        size = min(
            len(data),
            self._h2.local_flow_control_window(stream_id),
            self._h2.max_outbound_frame_size,
        )
        if size <= 0:
            return False
        with memoryview(data) as view:
            self._h2.send_data(stream_id, view[:size])
        del data[:size]
        return True

    def _translate(self, event: h2.events.Event) -> Iterator[Event]:
        match event:
            case h2.events.DataReceived(stream_id=stream_id):
                self._received += event.flow_controlled_length
                yield Data(stream_id, event.data, event.flow_controlled_length)
            case h2.events.RequestReceived(stream_id=stream_id):
                self._outgoing[stream_id] = _Outgoing(bytearray())
                self._receiving.add(stream_id)
                yield HeadersReceived(stream_id, event.headers, opened=True)
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                yield HeadersReceived(event.stream_id, event.headers, opened=False)
            case h2.events.StreamEnded(stream_id=stream_id):
                self._receiving.discard(stream_id)
                self._consumed.pop(stream_id, None)
                yield Ended(stream_id)
            case h2.events.StreamReset(stream_id=stream_id):
                self._forget(stream_id)
                yield Reset(stream_id, event.error_code)
            case h2.events.RemoteSettingsChanged():
                yield SettingsReceived()

    def _forget(self, stream_id: int) -> None:
        self._outgoing.pop(stream_id, None)
        self._receiving.discard(stream_id)
        self._consumed.pop(stream_id, None)
