"""One stream of an HTTP/2 connection: its windows and its unsent data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from aiobuildkit.http2.events import Headers
from aiobuildkit.http2.frames import Broken, ErrorCode

__all__ = ["INITIAL_WINDOW", "MAX_WINDOW", "RECEIVE_WINDOW", "StreamState", "increased"]

RECEIVE_WINDOW: Final = 4 * 1024 * 1024
"""Bytes that the peer may send without a WINDOW_UPDATE: on each stream, and, in addition to
INITIAL_WINDOW, on the connection."""

INITIAL_WINDOW: Final = 65_535
"""The initial window of the connection, and of streams without a setting of the peer."""

MAX_WINDOW: Final = (1 << 31) - 1
"""The largest window (section 6.9.1), and the highest number of a stream."""


def increased(window: int, increment: int) -> int:
    """A send window after a WINDOW_UPDATE, or new settings, of the peer.

    Raises:
        Broken: the window is too large.
    """
    window += increment
    if window > MAX_WINDOW:
        raise Broken("a window too large", ErrorCode.FLOW_CONTROL_ERROR)
    return window


@dataclass(slots=True)
class StreamState:
    """A stream that is open in at least one direction.

    Attributes:
        send_window: bytes that the peer accepts; negative if it reduced its initial window.
        receive_window: bytes that the peer may send.
        unacknowledged: consumed bytes that no WINDOW_UPDATE has returned to the peer yet.
        sending: our side has not sent END_STREAM: «open» or «half-closed (remote)» in section 5.1.
        receiving: the peer has not sent END_STREAM: «open» or «half-closed (local)».
        chunks: data to send, after `head`.
        head: data to send in the next frame.
        unsent: bytes of `head` and `chunks`.
        ending: whether END_STREAM follows the queued data.
        trailers: the trailers that have END_STREAM; None: an empty DATA frame has it.
    """

    send_window: int
    receive_window: int = RECEIVE_WINDOW
    unacknowledged: int = 0
    sending: bool = True
    receiving: bool = True
    chunks: list[bytes] = field(default_factory=list)
    head: memoryview = field(default_factory=lambda: memoryview(b""))
    unsent: int = 0
    ending: bool = False
    trailers: Headers | None = None

    @property
    def closed(self) -> bool:
        """Whether both sides have sent END_STREAM."""
        return not self.sending and not self.receiving

    def queue(self, *data: bytes) -> None:
        """Queue data to send."""
        self.chunks += data
        self.unsent += sum(map(len, data))

    def dequeue(self, size: int) -> memoryview:
        """Remove and return at most so many bytes to send, and at least one."""
        if not self.head:
            self.head = memoryview(b"".join(self.chunks))
            self.chunks.clear()
        piece = self.head[:size]
        self.head = self.head[size:]
        self.unsent -= len(piece)
        return piece
