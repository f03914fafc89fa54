"""The bytes to send to the peer of an HTTP/2 connection, and their order.

Control frames and headers go first, in the order in which they were made. Then follows the streams'
data, one frame of each stream in turn, as the peer's windows allow. The end of a stream follows its
data.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from hpack import Encoder

from aiobuildkit.http2.events import Headers
from aiobuildkit.http2.frames import (
    END_HEADERS,
    END_STREAM,
    MAX_FRAME,
    Kind,
    encode,
    encode_header,
)
from aiobuildkit.http2.streams import INITIAL_WINDOW, StreamState, increased

__all__ = ["Sending"]

_TABLE: Final = 4096
"""The most bytes of our compression table, even if the peer allows more."""


class Sending:
    """The sending side of one connection.

    Args:
        preface: bytes before all frames.

    Attributes:
        largest_frame: the largest payload that the peer accepts, in bytes.
    """

    def __init__(self, preface: bytes) -> None:
        self.largest_frame = MAX_FRAME
        self._control = [preface]  # encoded frames without flow control
        self._encoder = Encoder()
        self._send_window = INITIAL_WINDOW  # of the connection, in bytes

    def frame(self, kind: Kind, stream_id: int, payload: bytes = b"", flags: int = 0) -> None:
        """Queue a frame without flow control."""
        self._control.append(encode(kind, stream_id, payload, flags))

    def headers(self, stream_id: int, headers: Headers, flags: int = 0) -> None:
        """Queue headers, in as many frames as necessary, before the stream's queued data."""
        block = self._encoder.encode(headers, huffman=False)
        starts = range(0, len(block), self.largest_frame)
        for start in starts:
            kind = Kind.CONTINUATION if start else Kind.HEADERS
            last = END_HEADERS if start == starts[-1] else 0
            part = block[start : start + self.largest_frame]
            self.frame(kind, stream_id, part, last | (0 if start else flags))

    def limit_table(self, size: int) -> None:
        """Set the peer's limit of the compression table, in bytes."""
        self._encoder.header_table_size = min(size, _TABLE)

    def increase_window(self, increment: int) -> None:
        """Increase the connection's send window.

        Raises:
            Broken: the window is too large.
        """
        self._send_window = increased(self._send_window, increment)

    def data_to_send(self, streams: dict[int, StreamState]) -> bytes:
        """Return the bytes to send now; streams that these close are removed."""
        out: list[bytes | memoryview] = [*self._control]
        self._control.clear()
        turn = deque(
            stream_id
            for stream_id, stream in streams.items()
            if stream.sending and (stream.unsent or stream.ending)
        )
        while turn:
            stream_id = turn.popleft()
            stream = streams[stream_id]
            if self._send_frame(stream_id, stream, out):
                turn.append(stream_id)
            elif stream.closed:
                del streams[stream_id]
        return b"".join(out)

    def _send_frame(
        self, stream_id: int, stream: StreamState, out: list[bytes | memoryview]
    ) -> bool:
        """Send one frame of a stream's data if its window allows; without data, its end."""
        if stream.unsent:
            size = min(self._send_window, stream.send_window, self.largest_frame)
            if size <= 0:
                return False
            piece = stream.dequeue(size)
            self._send_window -= len(piece)
            stream.send_window -= len(piece)
            out += (encode_header(Kind.DATA, stream_id, len(piece)), piece)
            return True
        if stream.ending:
            if stream.trailers is None:
                out.append(encode_header(Kind.DATA, stream_id, 0, END_STREAM))
            else:
                self.headers(stream_id, stream.trailers, END_STREAM)
                out += self._control
                self._control.clear()
            stream.sending = False
        return False
