"""One stream of an HTTP/2 connection: its windows and its unsent data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiobuildkit.http2.frames import Broken, ErrorCode

if TYPE_CHECKING:
    from aiobuildkit.http2.events import Headers

__all__ = ["FIRST_WINDOW", "MAX_WINDOW", "WINDOW", "StreamState", "grown"]

WINDOW: Final = 4 * 1024 * 1024
"""Our window: for each stream, and, in addition to 64 KiB, for the connection. In bytes."""

FIRST_WINDOW: Final = 65_535
"""The initial window of the connection, and of streams without a setting of the peer."""

MAX_WINDOW: Final = (1 << 31) - 1


def grown(window: int, increment: int) -> int:
    """A window after a WINDOW_UPDATE of the peer.

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
        window: bytes that the peer accepts; negative if it reduced its initial window.
        room: bytes that the peer may send.
        used: consumed bytes of `room` that no WINDOW_UPDATE has returned yet.
        sending: whether our side may send.
        receiving: whether the peer may send.
        chunks: data to send, after `head`.
        head: data to send in the next frame.
        unsent: bytes of `head` and `chunks`.
        ending: whether our side ends after this data.
        trailers: the trailers at the end.
    """

    window: int
    room: int = WINDOW
    used: int = 0
    sending: bool = True
    receiving: bool = True
    chunks: list[bytes] = field(default_factory=list)
    head: memoryview = field(default_factory=lambda: memoryview(b""))
    unsent: int = 0
    ending: bool = False
    trailers: Headers | None = None

    @property
    def over(self) -> bool:
        """Whether neither side may send."""
        return not self.sending and not self.receiving

    def put(self, *data: bytes) -> None:
        """Queue data to send."""
        self.chunks += data
        self.unsent += sum(map(len, data))

    def cut(self, size: int) -> memoryview:
        """Take at most so many bytes to send, and at least one."""
        if not self.head:
            self.head = memoryview(b"".join(self.chunks))
            self.chunks.clear()
        piece = self.head[:size]
        self.head = self.head[size:]
        self.unsent -= len(piece)
        return piece
