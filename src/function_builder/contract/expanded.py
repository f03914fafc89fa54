"""An archive's bytes together with what its sparse entries leave out."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from function_builder.contract.errors import Refusal
from function_builder.contract.reader import Reader
from function_builder.contract.sparse import MAX_PIECES, Sparse, too_many_pieces


class Expanded:
    """An archive's bytes, and behind them its sparse files, as if their holes were stored.

    A Reader: what reads files by offset and size needs to know nothing of holes.

    Args:
        reader: the archive's bytes.
        max_bytes: how many there may be, sparse files included.
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
        """What to read from: the archive's own reader where no file is sparse."""
        return self if self._size > self._reader.size else self._reader

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._size

    def add(self, file: Sparse) -> int:
        """Add a file behind all others; return its offset.

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
                # As any reader says it: an archive that is shorter than it was.
                return bytes(data[: start - offset + len(piece)])
            data[start - offset : start - offset + length] = piece
        return bytes(data)

    def _stored(self, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
        """What of a range is stored: (place, where in the archive, bytes)."""
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
