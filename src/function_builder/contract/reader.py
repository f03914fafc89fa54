"""Readers of a body at any offset."""

from __future__ import annotations

from typing import Final, Protocol

_AHEAD: Final = 64 * 1024
"""Bytes read at once: some ten small files. For large files, no byte is read twice."""


class Reader(Protocol):
    """Bytes that can be read at any offset, any number of times."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only where the bytes end."""


class Bytes:
    """Bytes in memory as a reader."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self._data)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only where the bytes end."""
        return self._data[offset : offset + size]


class ReadAhead:
    """A reader for one thread that reads forward: it combines small reads into larger ones."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._start = 0
        self._held = b""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._reader.size

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only where the bytes end."""
        if size > _AHEAD:
            return self._reader.read(offset, size)
        place = offset - self._start
        if place < 0 or place + size > len(self._held):
            self._start, self._held, place = offset, self._reader.read(offset, _AHEAD), 0
        return self._held[place : place + size]


def read_exactly(reader: Reader, offset: int, size: int) -> bytes:
    """Read `size` bytes of an archive, which must exist according to its index.

    Raises:
        OSError: there are fewer bytes.
    """
    data = reader.read(offset, size)
    if len(data) < size:
        raise OSError("the archive ends before its index does")
    return data
