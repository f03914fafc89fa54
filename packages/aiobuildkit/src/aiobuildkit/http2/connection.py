"""One HTTP/2 connection, either side of it, without I/O: bytes in by feed, out by take.

It supports the part of RFC 9113 that gRPC with BuildKit uses: no pushes, no priorities, no upgrade.
Windows are large, and replenished by the quarter. Header lists may have megabytes, because the
trailers of a failed build contain its Dockerfile. Calls may finish after a graceful GOAWAY. This
module receives; ``outbound`` has the bytes to send and their order. ``hpack`` compresses headers.

No library handles the frames, because a context of 200 MB has 25,000 of them, each twice: in the
connection, and in the session inside it (docs/performance.md has the figures).

Data for a closed stream is dropped without an error. The peer may reset a stream at any time, so
no caller could avoid it, and the Reset event reports it. Frames that arrive for a closed stream are
dropped too, because they may have been sent before the reset arrived.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from aiobuildkit.errors import ProtocolError
from aiobuildkit.http2.compression import Decoder, MalformedHeaders
from aiobuildkit.http2.events import (
    Data,
    Ended,
    Event,
    GoingAway,
    Headers,
    HeadersReceived,
    Reset,
    SettingsReceived,
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
from aiobuildkit.http2.streams import FIRST_WINDOW, MAX_WINDOW, WINDOW, StreamState, grown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "HTTP2",
    "WINDOW",
    "Data",
    "Ended",
    "ErrorCode",
    "Event",
    "GoingAway",
    "HeadersReceived",
    "Reset",
    "SettingsReceived",
]

_MAX_TRAILERS: Final = 8 * 1024 * 1024
"""The most bytes of the headers of an answer. BuildKit's error details contain the Dockerfile, in
base64, more than once."""

_MAX_REQUEST_HEADERS: Final = 2 * 1024 * 1024
"""The most bytes of the headers of a request, including 32 for each header. BuildKit sends one
header for each source of a COPY and each line of an ignore file. It does not send a request that
would exceed this, and the build fails with an error that says so. Decoding 40,000 headers takes
0.15 s."""

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
_LONG: Final = Struct(">L")
_GOODBYE: Final = Struct(">LL")


class HTTP2:
    """The protocol of one connection, as client (streams are opened) or as server.

    Raises:
        ProtocolError: from feed, when the peer broke HTTP/2. The connection is over then;
            take still has the GOAWAY that tells the peer why.
    """

    def __init__(self, *, client: bool) -> None:
        self._client = client
        max_headers = _MAX_TRAILERS if client else _MAX_REQUEST_HEADERS
        self._reader = FrameReader(b"" if client else PREFACE, max_header_block=max_headers)
        self._decoder = Decoder(max_headers)
        self._streams: dict[int, StreamState] = {}
        self._opened = -1 if client else 0
        self._over = False
        self._room = FIRST_WINDOW + WINDOW
        self._received = 0
        self._peer_window = FIRST_WINDOW
        self._peer_streams = MAX_WINDOW
        self._greeted = False
        settings = {
            _ENABLE_PUSH: 0,
            _MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
            _INITIAL_WINDOW_SIZE: WINDOW,
            _MAX_HEADER_LIST_SIZE: max_headers,
        }
        told = b"".join(_SETTING.pack(*setting) for setting in settings.items())
        self._sending = Sending(PREFACE if client else b"")
        self._sending.frame(Kind.SETTINGS, 0, told)
        self._sending.frame(Kind.WINDOW_UPDATE, 0, _LONG.pack(WINDOW))
        self._takers: dict[int, Callable[[Frame], Iterator[Event]]] = {
            Kind.DATA: self._take_data,
            Kind.HEADERS: self._take_headers,
            Kind.RST_STREAM: self._take_reset,
            Kind.SETTINGS: self._take_settings,
            Kind.PUSH_PROMISE: self._take_push,
            Kind.PING: self._take_ping,
            Kind.GOAWAY: self._take_goodbye,
            Kind.WINDOW_UPDATE: self._take_window,
        }

    def open(self, headers: Headers) -> int:
        """Open a stream, as a client, and return its number.

        Raises:
            ProtocolError: no stream can be opened (any more).
        """
        if len(self._streams) >= self._peer_streams:
            raise ProtocolError(f"no stream can be opened: the peer allows {self._peer_streams}")
        if self._opened + 2 > MAX_WINDOW:
            raise ProtocolError("no stream can be opened: all stream numbers were used")
        self._opened += 2
        self._streams[self._opened] = StreamState(self._peer_window)
        self._sending.headers(self._opened, headers)
        return self._opened

    def respond(self, stream_id: int, headers: Headers) -> None:
        """Send the headers of a response, as a server, before anything else."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.sending:
            self._sending.headers(stream_id, headers)

    def send(self, stream_id: int, *data: bytes) -> None:
        """Queue data; take sends it as the peer's windows allow."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.sending and not stream.ending:
            stream.put(*data)

    def end(self, stream_id: int, trailers: Headers | None = None) -> None:
        """Half-close a stream once its queued data is sent, with trailers if given."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.sending:
            stream.ending = True
            stream.trailers = trailers

    def reset(self, stream_id: int, code: int = ErrorCode.CANCEL) -> None:
        """Reset a stream; queued data is discarded."""
        if self._streams.pop(stream_id, None) is not None:
            self._sending.frame(Kind.RST_STREAM, stream_id, _LONG.pack(code))

    def consumed(self, stream_id: int, size: int) -> bool:
        """Say that a Data event's bytes need no memory any more; True if take has to tell it."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.receiving:
            return False
        stream.used += size
        if stream.used < WINDOW // 4:
            return False
        self._sending.frame(Kind.WINDOW_UPDATE, stream_id, _LONG.pack(stream.used))
        stream.room += stream.used
        stream.used = 0
        return True

    def unsent(self, stream_id: int) -> int:
        """Bytes queued on a stream that take has not yet returned."""
        stream = self._streams.get(stream_id)
        return stream.unsent if stream is not None else 0

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes from the peer, split anywhere, and return what they mean."""
        events: list[Event] = []
        if self._over:
            return events
        try:
            for each in self._reader.feed(data):
                if self._take_frame(each, events):
                    break
        except Broken as error:
            self._over = True
            self._streams.clear()
            last = 0 if self._client else self._opened
            self._sending.frame(Kind.GOAWAY, 0, _GOODBYE.pack(last, error.code))
            raise ProtocolError(f"the peer broke HTTP/2: {error}") from error
        if self._received >= WINDOW // 4:
            # The connection's window does not depend on the data consumed, because an unread #
            # stream must not stop the others. The streams' windows limit the memory.
            self._sending.frame(Kind.WINDOW_UPDATE, 0, _LONG.pack(self._received))
            self._room += self._received
            self._received = 0
        return events

    def take(self) -> bytes:
        """Return what is to be sent now; the rest waits for the peer's windows."""
        return self._sending.take(self._streams)

    # Frames from the peer.

    def _take_frame(self, frame: Frame, events: list[Event]) -> bool:
        """Add the events of a frame; return whether no frame is read after it."""
        if not self._greeted and (frame.kind != Kind.SETTINGS or frame.flags & ACK):
            raise Broken("the first frame is not SETTINGS")
        self._greeted = True
        taker = self._takers.get(frame.kind)
        if taker is not None:
            events += taker(frame)
        return self._over

    def _known(self, frame: Frame) -> StreamState | None:
        """The stream of a frame; None if it is closed.

        Raises:
            Broken: the stream was never opened.
        """
        stream = self._streams.get(frame.stream_id)
        if stream is None and (not frame.stream_id % 2 or frame.stream_id > self._opened):
            raise Broken(
                f"a frame of type {frame.kind} for stream {frame.stream_id}, which was never opened"
            )
        return stream

    def _take_data(self, frame: Frame) -> Iterator[Event]:
        stream = self._known(frame)
        self._received += frame.size
        self._room -= frame.size
        if stream is not None:
            stream.room -= frame.size
        if self._room < 0 or (stream is not None and stream.room < 0):
            raise Broken("more data than its window allows", ErrorCode.FLOW_CONTROL_ERROR)
        if stream is None or not stream.receiving:
            return
        if frame.size:
            yield Data(frame.stream_id, frame.payload, frame.size)
        if frame.flags & END_STREAM:
            yield self._end(frame.stream_id, stream)

    def _take_headers(self, frame: Frame) -> Iterator[Event]:
        try:
            # Also for a closed stream, because the connection shares the compression state.
            headers = self._decoder.decode(frame.payload)
        except MalformedHeaders as error:
            reason = f"invalid headers: {error}"
            raise Broken(reason, ErrorCode.COMPRESSION_ERROR) from error
        opened = not self._client and frame.stream_id > self._opened
        if opened:
            self._accept(frame.stream_id)
        stream = self._known(frame)
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
        self._opened = stream_id
        self._streams[stream_id] = StreamState(self._peer_window)

    def _end(self, stream_id: int, stream: StreamState) -> Ended:
        stream.receiving = False
        if stream.over:
            del self._streams[stream_id]
        return Ended(stream_id)

    def _take_reset(self, frame: Frame) -> Iterator[Event]:
        code = _number(frame)
        if self._known(frame) is not None:
            del self._streams[frame.stream_id]
            yield Reset(frame.stream_id, code)

    def _take_settings(self, frame: Frame) -> Iterator[Event]:
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
            self._sending.compress_within(value)
        elif setting == _MAX_CONCURRENT_STREAMS:
            self._peer_streams = value
        elif setting == _INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW:
                raise Broken("a window too large", ErrorCode.FLOW_CONTROL_ERROR)
            for stream in self._streams.values():
                stream.window = grown(stream.window, value - self._peer_window)
            self._peer_window = value
        elif setting == _MAX_FRAME_SIZE:
            if not MAX_FRAME <= value <= _LARGEST_FRAME:
                raise Broken(f"frames of at most {value} bytes")
            self._sending.largest_frame = value

    def _take_push(self, frame: Frame) -> Iterator[Event]:
        raise Broken(f"a push on stream {frame.stream_id}, which is not allowed")

    def _take_ping(self, frame: Frame) -> Iterator[Event]:
        if frame.stream_id or len(frame.payload) != _PING_SIZE:
            raise Broken("a ping of a wrong size, or for a stream", ErrorCode.FRAME_SIZE_ERROR)
        if not frame.flags & ACK:
            self._sending.frame(Kind.PING, 0, frame.payload, ACK)
        return iter(())

    def _take_goodbye(self, frame: Frame) -> Iterator[Event]:
        if frame.stream_id or len(frame.payload) < _GOODBYE.size:
            raise Broken("a GOAWAY of a wrong size, or for a stream", ErrorCode.FRAME_SIZE_ERROR)
        last, code = _GOODBYE.unpack_from(frame.payload)
        served = not self._client or last & MAX_WINDOW >= self._opened
        graceful = served and code == ErrorCode.NO_ERROR
        self._over = not graceful
        reason = frame.payload[_GOODBYE.size :].decode("utf-8", "replace")
        yield GoingAway(code, reason, graceful)

    def _take_window(self, frame: Frame) -> Iterator[Event]:
        increment = _number(frame) & MAX_WINDOW
        if not increment:
            raise Broken("a window update of 0")
        if not frame.stream_id:
            self._sending.grow(increment)
        elif stream := self._known(frame):
            stream.window = grown(stream.window, increment)
        return iter(())


def _number(frame: Frame) -> int:
    """The payload of a frame that contains one number."""
    if len(frame.payload) != _LONG.size:
        raise Broken(f"a frame of type {frame.kind} of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
    number: int = _LONG.unpack(frame.payload)[0]
    return number
