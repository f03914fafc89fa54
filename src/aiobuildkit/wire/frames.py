"""Bytes into HTTP/2 frames: ``h2``'s buffer, but for what ``h2`` decides otherwise.

``h2`` refuses a header block of more than 64 CONTINUATION frames, which is 1 MiB from
grpc-go; here its bytes are bounded. ``h2`` is done at any GOAWAY, where RFC 9113 section 6.8
lets the streams that the peer still serves come to their ends, as buildkitd means it on
SIGTERM; here GOAWAY is kept from ``h2``, and after one that serves nothing more, so is
everything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from h2.errors import ErrorCodes
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.frame_buffer import FrameBuffer as H2FrameBuffer
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import ContinuationFrame, Frame, GoAwayFrame, HeadersFrame

if TYPE_CHECKING:
    from h2.connection import H2Connection

__all__ = ["FrameBuffer"]

_HEADER = 9
"""Bytes before a frame's body."""


class FrameBuffer(H2FrameBuffer):
    """The ``incoming_buffer`` of an H2Connection.

    Args:
        connection: whose buffer it is.
        server: whether the peer begins with the client's preface.
        max_header_block: bytes of one header block, compressed, with its frames' headers.

    Attributes:
        goodbyes: GOAWAY frames that came, and whether the open streams are still served.
    """

    def __init__(self, connection: H2Connection, *, server: bool, max_header_block: int) -> None:
        super().__init__(server=server)
        self._connection = connection
        self._max_header_block = max_header_block
        self._block: list[HeadersFrame | ContinuationFrame] = []
        self._block_size = 0
        self._over = False
        self.goodbyes: list[tuple[GoAwayFrame, bool]] = []

    def __next__(self) -> Frame:
        while not self._over and (frame := self._parse()) is not None:
            if isinstance(frame, GoAwayFrame):
                self._leave(frame)
            elif (whole := self._collect(frame)) is not None:
                return whole
        raise StopIteration

    def _parse(self) -> Frame | None:
        if len(self._data) < _HEADER:
            return None
        try:
            frame, length = Frame.parse_frame_header(memoryview(self._data[:_HEADER]))
            if length > self.max_frame_size:
                raise FrameTooLargeError(f"a frame of {length} bytes")
            end = _HEADER + length
            if len(self._data) < end:
                return None
            frame.parse_body(memoryview(self._data[_HEADER:end]))
        except HyperframeError as error:
            raise ProtocolError(str(error)) from error
        del self._data[:end]
        return frame

    def _collect(self, frame: Frame) -> Frame | None:
        """Join a header block's frames into one; other frames pass as they are."""
        if self._block:
            if not isinstance(frame, ContinuationFrame) or (
                frame.stream_id != self._block[0].stream_id
            ):
                raise ProtocolError("a header block was interrupted by another frame")
        elif not isinstance(frame, HeadersFrame) or "END_HEADERS" in frame.flags:
            return frame
        self._block.append(frame)
        self._block_size += _HEADER + len(frame.data)
        if self._block_size > self._max_header_block:
            raise ProtocolError(f"a header block of more than {self._max_header_block} bytes")
        if "END_HEADERS" not in frame.flags:
            return None
        whole = self._block[0]
        whole.flags.add("END_HEADERS")
        whole.data = b"".join(part.data for part in self._block)
        self._block, self._block_size = [], 0
        return whole

    def _leave(self, frame: GoAwayFrame) -> None:
        served = frame.last_stream_id >= self._connection.highest_outbound_stream_id
        graceful = served and frame.error_code == ErrorCodes.NO_ERROR
        self.goodbyes.append((frame, graceful))
        self._over = not graceful
