"""Parse and serialize HTTP/2 frames (RFC 9113, sections 4 and 6), without I/O."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

__all__ = [
    "ACK",
    "END_HEADERS",
    "END_STREAM",
    "MAX_FRAME",
    "PREFACE",
    "Broken",
    "ErrorCode",
    "Frame",
    "FrameReader",
    "Kind",
    "encode",
    "encode_header",
]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The connection preface, which a client sends first."""

MAX_FRAME: Final = 16_384
"""The largest payload that every peer must accept. Our settings do not allow more."""

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
_PADDED: Final = 0x8
_PRIORITY: Final = 0x20

_HEADER: Final = Struct(">HBBBL")
_NUMBER: Final = 0x7FFF_FFFF
_PRIORITY_SIZE: Final = 5
_HELD: Final = 128  # bytes of each part of a header block in addition to its payload


class Kind(IntEnum):
    """A frame's type; unknown types are ignored."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


class ErrorCode(IntEnum):
    """The error codes that this package sends (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    FLOW_CONTROL_ERROR = 0x3
    FRAME_SIZE_ERROR = 0x6
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9


class Broken(Exception):
    """The peer violated HTTP/2, and the connection ends with this code."""

    def __init__(self, reason: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = code


class Frame(NamedTuple):
    """One frame. The frames of a header block are joined into the first of them.

    Attributes:
        kind: a `Kind`, or an unknown number.
        flags: bits.
        stream_id: 0 for the connection.
        payload: without padding and priorities.
        size: bytes of the flow-control windows that a DATA frame uses.
    """

    kind: int
    flags: int
    stream_id: int
    payload: bytes
    size: int


def encode(kind: Kind, stream_id: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A frame's bytes."""
    return encode_header(kind, stream_id, len(payload), flags) + payload


def encode_header(kind: Kind, stream_id: int, size: int, flags: int = 0) -> bytes:
    """The header of a frame with a payload of this size."""
    return _HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id)


class FrameReader:
    """Cuts bytes, which may be split anywhere, into frames.

    Args:
        preface: the bytes that the peer must send first.
        max_header_block: the most bytes of one compressed header block, including its frames'
            headers, because a block may consist of many small frames.
    """

    def __init__(self, preface: bytes, *, max_header_block: int) -> None:
        self._preface = preface
        self._max_header_block = max_header_block
        self._partial = bytearray()
        self._wanted = _HEADER.size
        self._block: list[Frame] = []
        self._block_size = 0

    def receive_data(self, data: bytes) -> Iterator[Frame]:
        """Receive bytes and yield complete frames. Exhaust it before the next call.

        Raises:
            Broken: a frame is invalid, or not allowed here.
        """
        if self._preface or self._partial:
            self._partial += data
            if self._preface and not self._skip_preface():
                return
            if len(self._partial) < self._wanted:
                return  # so that the pieces of a frame are joined only once
            data = bytes(self._partial)
            self._partial.clear()
        start, end, wanted = 0, len(data), _HEADER.size
        while end - start >= _HEADER.size:
            high, low, kind, flags, stream_id = _HEADER.unpack_from(data, start)
            size = high << 8 | low
            if size > MAX_FRAME:
                raise Broken(f"a frame of {size} bytes", ErrorCode.FRAME_SIZE_ERROR)
            wanted = _HEADER.size + size
            if start + wanted > end:
                break
            payload = data[start + _HEADER.size : start + wanted]
            start += wanted
            wanted = _HEADER.size
            whole = self._collect(Frame(kind, flags, stream_id & _NUMBER, payload, size))
            if whole is not None:
                yield whole
        self._partial += memoryview(data)[start:]
        self._wanted = wanted

    def _skip_preface(self) -> bool:
        """Whether the preface has arrived; it is then skipped."""
        begun = self._partial[: len(self._preface)]
        if not self._preface.startswith(begun):
            raise Broken("the connection does not begin with HTTP/2's preface")
        if len(begun) < len(self._preface):
            return False
        del self._partial[: len(self._preface)]
        self._preface = b""
        return True

    def _collect(self, frame: Frame) -> Frame | None:
        """Join a header block's frames into one; return other frames without padding."""
        if self._block:
            if frame.kind != Kind.CONTINUATION or frame.stream_id != self._block[0].stream_id:
                raise Broken("a header block was interrupted by another frame")
        elif frame.kind == Kind.CONTINUATION:
            raise Broken("a CONTINUATION frame without a header block")
        elif frame.kind == Kind.DATA:
            return _without_padding(frame)
        elif frame.kind != Kind.HEADERS:
            return frame
        else:
            frame = _without_padding(frame)
        return self._add_to_block(frame)

    def _add_to_block(self, frame: Frame) -> Frame | None:
        if not self._block and frame.flags & END_HEADERS:
            return frame
        self._block.append(frame)
        self._block_size += _HELD + len(frame.payload)
        if self._block_size > self._max_header_block:
            raise Broken(f"a header block of more than {self._max_header_block} bytes")
        if not frame.flags & END_HEADERS:
            return None
        whole = b"".join(part.payload for part in self._block)
        first = self._block[0]._replace(payload=whole)
        self._block, self._block_size = [], 0
        return first


def _without_padding(frame: Frame) -> Frame:
    flags, payload = frame.flags, frame.payload
    if not flags & (_PADDED | _PRIORITY):
        return frame
    begin, end = 0, len(payload)
    if flags & _PADDED:
        begin, end = 1, end - (payload[0] if payload else 1)
    if frame.kind == Kind.HEADERS and flags & _PRIORITY:
        begin += _PRIORITY_SIZE
    if begin > end:
        raise Broken("a frame with more padding than payload")
    return frame._replace(payload=payload[begin:end])
