"""The bounds of one HTTP/1.1 request: its headers, and the framing of its body.

Until a signature is proven, a request may come from a stranger. This module does no I/O.
"""

from __future__ import annotations

from typing import Final

MAX_HEAD_BYTES: Final = 32 * 1024
"""A request's bytes that are not its body's: headers, trailers, and the framing of chunks.

A body adds an eighth of its size to the bound, for the framing of its chunks.
"""

MAX_HEADERS: Final = 128
"""Headers and trailers of one request: each takes about 150 bytes of memory beside its own."""

FREE_CHUNKS: Final = 1024
MIN_CHUNK_BYTES: Final = 32
"""After a body's first `FREE_CHUNKS` chunks, a chunk must have so many bytes on average.

The parser calls Python for each chunk. A read of 256 KiB holds 43,000 chunks of one byte, which
would stop the event loop for a quarter of a second.
"""


class BoundError(Exception):
    """A request exceeds a bound. Raised within the parser's callbacks, it stops the parser."""


class RequestBounds:
    """Counts the parts of one request that have arrived.

    Attributes:
        fault: the bound that the request exceeds, for its client; empty: none.
    """

    def __init__(self) -> None:
        self.fault = ""
        self._bytes = self._headers = self._body_bytes = self._chunks = 0

    def receive(self, size: int) -> None:
        """Count bytes before they are parsed."""
        self._bytes += size

    def header(self) -> None:
        """Count a header, or a trailer.

        Raises:
            BoundError: there are too many.
        """
        self._headers += 1
        if self._headers > MAX_HEADERS:
            self._exceed(f"The request has more than {MAX_HEADERS} headers.")

    def chunk(self, size: int) -> None:
        """Count a piece of the body: a chunk, or the bytes of one read.

        Raises:
            BoundError: the chunks are too small.
        """
        self._body_bytes += size
        self._chunks += 1
        if self._chunks > FREE_CHUNKS + self._body_bytes // MIN_CHUNK_BYTES:
            self._exceed(f"The body's chunks are smaller than {MIN_CHUNK_BYTES} bytes on average.")

    def check_head(self) -> None:
        """Check the number of bytes that are not the body's.

        Raises:
            BoundError: there are too many.
        """
        if self._bytes - self._body_bytes > MAX_HEAD_BYTES + self._body_bytes // 8:
            self._exceed(f"Headers and chunks' framing exceed {MAX_HEAD_BYTES} bytes.")

    def _exceed(self, fault: str) -> None:
        self.fault = fault
        raise BoundError(fault)
