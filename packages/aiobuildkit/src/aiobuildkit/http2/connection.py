"""One HTTP/2 connection, either side of it, without I/O.

`receive_data` gets the peer's bytes and returns events; `data_to_send` returns the bytes to send.

It supports the part of RFC 9113 that gRPC with BuildKit uses: no pushes, no priorities, no upgrade.
Windows are large, and replenished by the quarter. Header lists may have megabytes, because the
trailers of a failed build contain its Dockerfile. Calls may finish after a graceful GOAWAY. This
module receives; `outbound` has the bytes to send and their order. `hpack` compresses headers.

No library handles the frames, because a context of 200 MB has 25,000 of them, each twice: in the
connection, and in the session inside it (docs/performance.md has the figures).

Data for a closed stream is dropped without an error. The peer may reset a stream at any time, so
no caller could avoid it, and the StreamReset event reports it. Frames that arrive for a closed
stream are dropped too, because they may have been sent before the reset arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final

from aiobuildkit.errors import ProtocolError
from aiobuildkit.http2.compression import Decoder, MalformedHeaders
from aiobuildkit.http2.events import (
    DataReceived,
    Event,
    GoAwayReceived,
    Headers,
    HeadersReceived,
    SettingsReceived,
    StreamEnded,
    StreamReset,
)
from aiobuildkit.http2.frames import (
    ACK,
    END_STREAM,
    MAX_FRAME,
    PREFACE,
    Broken,
    ErrorCode,
    Frame,
    FrameReader,
    Kind,
)
from aiobuildkit.http2.outbound import Sending
from aiobuildkit.http2.streams import (
    INITIAL_WINDOW,
    MAX_WINDOW,
    RECEIVE_WINDOW,
    StreamState,
    increased,
)

__all__ = [
    "HTTP2",
    "RECEIVE_WINDOW",
    "DataReceived",
    "ErrorCode",
    "Event",
    "GoAwayReceived",
    "HeadersReceived",
    "SettingsReceived",
    "StreamEnded",
    "StreamReset",
]

_MAX_TRAILERS: Final = 2 * 1024 * 1024
"""The most bytes of the headers of an answer, including 32 for each header. An error of BuildKit's
contains the failed command twice and its Dockerfile in base64. BuildKit resets a call whose error
would exceed this. Decoding all of it takes 0.4 s, in steps."""

_MAX_REQUEST_HEADERS: Final = 1536 * 1024
"""The most bytes of the headers of a request. BuildKit sends one header for each source of a COPY
and each line of an ignore file. It does not send a request that would exceed this, and the build
fails with an error that says so. Decoding 30,000 headers takes 0.1 s."""

_MAX_STREAMS: Final = 100
"""The most streams that the peer may have open at a time."""

# Settings (section 6.5.2).
_HEADER_TABLE_SIZE: Final = 1
_ENABLE_PUSH: Final = 2
_MAX_CONCURRENT_STREAMS: Final = 3
_INITIAL_WINDOW_SIZE: Final = 4
_MAX_FRAME_SIZE: Final = 5
_MAX_HEADER_LIST_SIZE: Final = 6

_LARGEST_FRAME: Final = (1 << 24) - 1
_PING_SIZE: Final = 8

_SETTING: Final = Struct(">HL")
_UINT32: Final = Struct(">L")
_GOAWAY: Final = Struct(">LL")


class HTTP2:
    """The protocol of one connection, as client (streams are opened) or as server.

    Raises:
        ProtocolError: from `receive_data`, when the peer violated HTTP/2. The connection is closed
            then; `data_to_send` still returns the GOAWAY that gives the peer the reason.
    """

    def __init__(self, *, client: bool) -> None:
        self._client = client
        max_headers = _MAX_TRAILERS if client else _MAX_REQUEST_HEADERS
        self._reader = FrameReader(b"" if client else PREFACE, max_header_block=max_headers)
        self._decoder = Decoder(max_headers)
        self._streams: dict[int, StreamState] = {}  # those that are not closed
        self._last_stream_id = -1 if client else 0  # the highest number that the client has used
        self._closed = False  # no frame is read any more
        self._settings_received = False  # the peer's first frame
        # The connection's receive window, in bytes: what the peer may send, on all streams, and
        # what it has sent since our last WINDOW_UPDATE.
        self._receive_window = INITIAL_WINDOW + RECEIVE_WINDOW
        self._unacknowledged = 0
        # The peer's settings: the send window of a new stream, and the most streams at a time.
        self._peer_initial_window = INITIAL_WINDOW
        self._peer_max_streams = MAX_WINDOW
        settings = {
            _ENABLE_PUSH: 0,
            _MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
            _INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            _MAX_HEADER_LIST_SIZE: max_headers,
        }
        encoded = b"".join(_SETTING.pack(*setting) for setting in settings.items())
        self._sending = Sending(PREFACE if client else b"")
        self._sending.frame(Kind.SETTINGS, 0, encoded)
        self._sending.frame(Kind.WINDOW_UPDATE, 0, _UINT32.pack(RECEIVE_WINDOW))
        self._receivers: dict[int, Callable[[Frame], Iterator[Event]]] = {
            Kind.DATA: self._receive_data_frame,
            Kind.HEADERS: self._receive_headers_frame,
            Kind.RST_STREAM: self._receive_rst_stream_frame,
            Kind.SETTINGS: self._receive_settings_frame,
            Kind.PUSH_PROMISE: self._receive_push_promise_frame,
            Kind.PING: self._receive_ping_frame,
            Kind.GOAWAY: self._receive_goaway_frame,
            Kind.WINDOW_UPDATE: self._receive_window_update_frame,
        }

    def open(self, headers: Headers) -> int:
        """Open a stream, as a client, and return its number.

        Raises:
            ProtocolError: no stream can be opened (any more).
        """
        if len(self._streams) >= self._peer_max_streams:
            raise ProtocolError(
                f"no stream can be opened: the peer allows {self._peer_max_streams}"
            )
        if self._last_stream_id + 2 > MAX_WINDOW:
            raise ProtocolError("no stream can be opened: all stream numbers were used")
        self._last_stream_id += 2
        self._streams[self._last_stream_id] = StreamState(self._peer_initial_window)
        self._sending.headers(self._last_stream_id, headers)
        return self._last_stream_id

    def respond(self, stream_id: int, headers: Headers) -> None:
        """Send the headers of a response, as a server, before anything else."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.sending:
            self._sending.headers(stream_id, headers)

    def send(self, stream_id: int, *data: bytes) -> None:
        """Queue data; `data_to_send` returns it as the peer's windows allow."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.sending and not stream.ending:
            stream.queue(*data)

    def end(self, stream_id: int, trailers: Headers | None = None) -> None:
        """Half-close a stream once its queued data is sent, with trailers if given."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.sending:
            stream.ending = True
            stream.trailers = trailers

    def reset(self, stream_id: int, code: int = ErrorCode.CANCEL) -> None:
        """Reset a stream; queued data is discarded."""
        if self._streams.pop(stream_id, None) is not None:
            self._sending.frame(Kind.RST_STREAM, stream_id, _UINT32.pack(code))

    def acknowledge(self, stream_id: int, size: int) -> bool:
        """Return a DataReceived event's bytes to the stream's window, because they were consumed.

        Returns whether there is a WINDOW_UPDATE to send. Small increments are collected.
        """
        stream = self._streams.get(stream_id)
        if stream is None or not stream.receiving:
            return False
        stream.unacknowledged += size
        if stream.unacknowledged < RECEIVE_WINDOW // 4:
            return False
        self._sending.frame(Kind.WINDOW_UPDATE, stream_id, _UINT32.pack(stream.unacknowledged))
        stream.receive_window += stream.unacknowledged
        stream.unacknowledged = 0
        return True

    def unsent(self, stream_id: int) -> int:
        """Bytes queued on a stream that `data_to_send` has not yet returned."""
        stream = self._streams.get(stream_id)
        return stream.unsent if stream is not None else 0

    def receive_data(self, data: bytes) -> list[Event]:
        """Receive bytes, split anywhere, and return the events in them."""
        events: list[Event] = []
        if self._closed:
            return events
        try:
            for each in self._reader.receive_data(data):
                if self._receive_frame(each, events):
                    break
        except Broken as error:
            self._closed = True
            self._streams.clear()
            last = 0 if self._client else self._last_stream_id
            self._sending.frame(Kind.GOAWAY, 0, _GOAWAY.pack(last, error.code))
            raise ProtocolError(f"the peer broke HTTP/2: {error}") from error
        if self._unacknowledged >= RECEIVE_WINDOW // 4:
            # The connection's window does not depend on the data consumed, because an unread
            # stream must not stop the others. The streams' windows limit the memory.
            self._sending.frame(Kind.WINDOW_UPDATE, 0, _UINT32.pack(self._unacknowledged))
            self._receive_window += self._unacknowledged
            self._unacknowledged = 0
        return events

    def data_to_send(self) -> bytes:
        """Return the bytes to send now. Further data waits for the peer's WINDOW_UPDATE."""
        return self._sending.data_to_send(self._streams)

    # Frames from the peer.

    def _receive_frame(self, frame: Frame, events: list[Event]) -> bool:
        """Add the events of a frame; return whether no frame is read after it."""
        if not self._settings_received and (frame.kind != Kind.SETTINGS or frame.flags & ACK):
            raise Broken("the first frame is not SETTINGS")
        self._settings_received = True
        receiver = self._receivers.get(frame.kind)
        if receiver is not None:
            events += receiver(frame)
        return self._closed

    def _stream_of(self, frame: Frame) -> StreamState | None:
        """The stream of a frame; None if it is closed.

        Raises:
            Broken: the stream was never opened.
        """
        stream = self._streams.get(frame.stream_id)
        if stream is None and (not frame.stream_id % 2 or frame.stream_id > self._last_stream_id):
            raise Broken(
                f"a frame of type {frame.kind} for stream {frame.stream_id}, which was never opened"
            )
        return stream

    def _receive_data_frame(self, frame: Frame) -> Iterator[Event]:
        stream = self._stream_of(frame)
        self._unacknowledged += frame.size
        self._receive_window -= frame.size
        if stream is not None:
            stream.receive_window -= frame.size
        if self._receive_window < 0 or (stream is not None and stream.receive_window < 0):
            raise Broken("more data than its window allows", ErrorCode.FLOW_CONTROL_ERROR)
        if stream is None or not stream.receiving:
            return
        if frame.size:
            yield DataReceived(frame.stream_id, frame.payload, frame.size)
        if frame.flags & END_STREAM:
            yield self._end(frame.stream_id, stream)

    def _receive_headers_frame(self, frame: Frame) -> Iterator[Event]:
        try:
            # Also for a closed stream, because the connection shares the compression state.
            headers = self._decoder.decode(frame.payload)
        except MalformedHeaders as error:
            reason = f"invalid headers: {error}"
            raise Broken(reason, ErrorCode.COMPRESSION_ERROR) from error
        opened = not self._client and frame.stream_id > self._last_stream_id
        if opened:
            self._accept(frame.stream_id)
        stream = self._stream_of(frame)
        if stream is None or not stream.receiving:
            return
        yield HeadersReceived(frame.stream_id, headers, opened)
        if frame.flags & END_STREAM:
            yield self._end(frame.stream_id, stream)

    def _accept(self, stream_id: int) -> None:
        if not stream_id % 2:
            raise Broken("a client opened a stream with an even number")
        if len(self._streams) >= _MAX_STREAMS:
            raise Broken(f"more than {_MAX_STREAMS} streams at a time")
        self._last_stream_id = stream_id
        self._streams[stream_id] = StreamState(self._peer_initial_window)

    def _end(self, stream_id: int, stream: StreamState) -> StreamEnded:
        stream.receiving = False
        if stream.closed:
            del self._streams[stream_id]
        return StreamEnded(stream_id)

    def _receive_rst_stream_frame(self, frame: Frame) -> Iterator[Event]:
        code = _number(frame)
        if self._stream_of(frame) is not None:
            del self._streams[frame.stream_id]
            yield StreamReset(frame.stream_id, code)

    def _receive_settings_frame(self, frame: Frame) -> Iterator[Event]:
        if frame.stream_id or len(frame.payload) % _SETTING.size:
            raise Broken("settings of a wrong size, or for a stream", ErrorCode.FRAME_SIZE_ERROR)
        if frame.flags & ACK:
            return
        for setting, value in _SETTING.iter_unpack(frame.payload):
            self._set(setting, value)
        self._sending.frame(Kind.SETTINGS, 0, flags=ACK)
        yield SettingsReceived()

    def _set(self, setting: int, value: int) -> None:
        if setting == _HEADER_TABLE_SIZE:
            self._sending.limit_table(value)
        elif setting == _MAX_CONCURRENT_STREAMS:
            self._peer_max_streams = value
        elif setting == _INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise Broken("a window too large", ErrorCode.FLOW_CONTROL_ERROR)
            for stream in self._streams.values():
                stream.send_window = increased(
                    stream.send_window, value - self._peer_initial_window
                )
            self._peer_initial_window = value
        elif setting == _MAX_FRAME_SIZE:
            if not MAX_FRAME <= value <= _LARGEST_FRAME:
                raise Broken(f"frames of at most {value} bytes")
            self._sending.largest_frame = value

    def _receive_push_promise_frame(self, frame: Frame) -> Iterator[Event]:
        raise Broken(f"a push on stream {frame.stream_id}, which is not allowed")

    def _receive_ping_frame(self, frame: Frame) -> Iterator[Event]:
        if frame.stream_id or len(frame.payload) != _PING_SIZE:
            raise Broken("a ping of a wrong size, or for a stream", ErrorCode.FRAME_SIZE_ERROR)
        if not frame.flags & ACK:
            self._sending.frame(Kind.PING, 0, frame.payload, ACK)
        return iter(())

    def _receive_goaway_frame(self, frame: Frame) -> Iterator[Event]:
        if frame.stream_id or len(frame.payload) < _GOAWAY.size:
            raise Broken("a GOAWAY of a wrong size, or for a stream", ErrorCode.FRAME_SIZE_ERROR)
        last, code = _GOAWAY.unpack_from(frame.payload)
        served = not self._client or last & MAX_WINDOW >= self._last_stream_id
        graceful = served and code == ErrorCode.NO_ERROR
        self._closed = not graceful
        reason = frame.payload[_GOAWAY.size :].decode("utf-8", "replace")
        yield GoAwayReceived(code, reason, graceful)

    def _receive_window_update_frame(self, frame: Frame) -> Iterator[Event]:
        increment = _number(frame) & MAX_WINDOW
        if not increment:
            raise Broken("a window update of 0")
        if not frame.stream_id:
            self._sending.increase_window(increment)
        elif stream := self._stream_of(frame):
            stream.send_window = increased(stream.send_window, increment)
        return iter(())


def _number(frame: Frame) -> int:
    """The payload of a frame that contains one number."""
    if len(frame.payload) != _UINT32.size:
        raise Broken(f"a frame of type {frame.kind} of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
    number: int = _UINT32.unpack(frame.payload)[0]
    return number
