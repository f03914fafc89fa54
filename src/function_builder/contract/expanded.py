"""An archive's bytes with its sparse files expanded."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from function_builder.contract.errors import Refusal
from function_builder.contract.reader import Reader
from function_builder.contract.sparse import MAX_PIECES, Sparse, too_many_pieces


class Expanded:
    """An archive's bytes, followed by its sparse files with their holes as zeros.

    It is a Reader, so code that reads files by offset and size need not handle holes.

    Args:
        reader: the archive's bytes.
        max_bytes: the most bytes, including sparse files.
    """

    def __init__(self, reader: Reader, max_bytes: int) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._starts = array("q")
        self._ends = array("q")
        self._sources = array("q")
        self._size = reader.size

    @property
    def reader(self) -> Reader:
        """The reader to use: the archive's own if no file is sparse."""
        return self if self._size > self._reader.size else self._reader

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self._size

    def add(self, file: Sparse) -> int:
        """Append a file; return its offset.

        Raises:
            Refusal: 413: the files are too large together, or have too many pieces.
        """
        offset = self._size
        if offset + file.size > self._max_bytes:
            raise Refusal(
                413,
                f"The archive with its sparse files is larger than {self._max_bytes} bytes:"
                " their holes count too.",
            )
        if len(self._starts) + len(file.pieces) > MAX_PIECES:
            raise too_many_pieces()
        source = file.offset
        for start, length in file.pieces:
            self._starts.append(offset + start)
            self._ends.append(offset + start + length)
            self._sources.append(source)
            source += length
        self._size += file.size
        return offset

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only where the bytes end."""
        archived = self._reader.size
        if offset + size <= archived:
            return self._reader.read(offset, size)
        end = min(offset + size, self._size)
        data = bytearray(max(0, end - offset))
        for start, source, length in self._stored(offset, end):
            piece = self._reader.read(source, length)
            if len(piece) < length:
                # Like other readers, for an archive that is shorter than its index.
                return bytes(data[: start - offset + len(piece)])
            data[start - offset : start - offset + length] = piece
        return bytes(data)

    def _stored(self, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The stored pieces of a range: (offset in it, offset in the archive, bytes)."""
        archived = self._reader.size
        if offset < archived:
            yield offset, offset, archived - offset
        for place in range(max(0, bisect_right(self._starts, offset) - 1), len(self._starts)):
            start, stop = self._starts[place], self._ends[place]
            if start >= end:
                return
            begin = max(start, offset)
            if begin < stop:
                yield begin, self._sources[place] + begin - start, min(stop, end) - begin
