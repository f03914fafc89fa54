"""One stream of an HTTP/2 connection: its windows, and what it has yet to send."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiobuildkit.http2.frames import Broken, ErrorCode

if TYPE_CHECKING:
    from aiobuildkit.http2.events import Headers

__all__ = ["FIRST_WINDOW", "MAX_WINDOW", "WINDOW", "StreamState", "grown"]

WINDOW: Final = 4 * 1024 * 1024
"""Bytes that the peer may send ahead, on each stream and, on top of 64 KiB, on all."""

FIRST_WINDOW: Final = 65_535
"""Of the connection always, and of streams until the peer says something else."""

MAX_WINDOW: Final = (1 << 31) - 1


def grown(window: int, increment: int) -> int:
    """A window to which the peer adds.

    Raises:
        Broken: it is too large then.
    """
    window += increment
    if window > MAX_WINDOW:
        raise Broken("a window too large", ErrorCode.FLOW_CONTROL_ERROR)
    return window


@dataclass(slots=True)
class StreamState:
    """A stream that is open at least one way.

    Attributes:
        window: bytes that the peer takes on it; negative if it changed its mind.
        room: bytes that the peer may send on it.
        used: what was consumed of the room and not given back yet.
        sending: whether our side may send.
        receiving: whether the peer's may.
        chunks: data to send, behind `head`.
        head: data to send, the next frames' first.
        unsent: bytes of both.
        ending: whether our side ends behind them.
        trailers: what it ends with.
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
