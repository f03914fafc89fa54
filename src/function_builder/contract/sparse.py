"""Sparse entries: files whose holes the archive leaves out, read as if the holes were stored.

Rust's `tar` crate and bsdtar write them by default for files with holes, GNU tar with --sparse.
Source: GNU tar manual, "Storing Sparse Files", and GNU tar's `src/sparse.c`.

A map lists the pieces of data with their offset in the file and their length. In the archive they
follow one another. The rest of the file is zeros. The maps are checked as in Go's archive/tar:
pieces are in order, do not overlap, end inside the file, and use all of the entry's data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from function_builder.contract.errors import Refusal, shown
from function_builder.contract.reader import Reader
from function_builder.contract.tarfields import BLOCK, number, padded_size

FLAG: Final = b"S"
"""The type of GNU's older form, whose map begins in the header block."""

_REFUSED: Final = (b"SCHILY.realsize", b"SUN.holesdata")
"""The marks of star's and Solaris' sparse entries, which other tar programs do not read."""

MAP: Final = b"GNU.sparse.map"
MAP_PARTS: Final = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
"""Version 0.0 repeats these two for each piece; they are read as one map, like version 0.1's."""

_MARK: Final = b"GNU.sparse."
_MAJOR: Final = b"GNU.sparse.major"
_MINOR: Final = b"GNU.sparse.minor"
_NAME: Final = b"GNU.sparse.name"
_SIZES: Final = (b"GNU.sparse.realsize", b"GNU.sparse.size")

MAX_PIECES: Final = 100_000
"""The most pieces of one archive: a disk image has thousands. Each takes three 8-byte numbers."""

_MAX_DIGITS: Final = 19
_IN_HEADER: Final = slice(386, 482)
_IN_BLOCK: Final = slice(0, 504)
_PIECE: Final = 24


class Sparse(NamedTuple):
    """The map of a sparse file.

    Attributes:
        size: bytes of the file, including holes.
        pieces: (offset in the file, bytes), in order.
        offset: of the first piece's data in the archive.
    """

    size: int
    pieces: Sequence[tuple[int, int]]
    offset: int


def is_sparse(flag: bytes, records: Mapping[bytes, bytes], name: str) -> bool:
    """Whether an entry is sparse, by its type or its pax records.

    Raises:
        Refusal: 400: it is, in a form that few tar programs support.
    """
    if not records:
        return flag == FLAG
    if any(key.startswith(_REFUSED) for key in records):
        raise Refusal(
            400,
            f"The entry {shown(name)} is a sparse file in a form that few tar programs support:"
            " make the archive with GNU tar, or without its option for sparse files.",
        )
    return flag == FLAG or any(key.startswith(_MARK) for key in records)


def joined(parts: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Version 0.0's map, from its records in order, in the form of version 0.1's.

    Raises:
        Refusal: 400: offsets and lengths do not alternate.
    """
    in_turn = all(key == MAP_PARTS[number % 2] for number, (key, _) in enumerate(parts))
    if not in_turn or any(b"," in value for _, value in parts):
        raise Refusal(400, "The archive is damaged: a pax header has a malformed sparse map.")
    return b",".join(value for _, value in parts)


def true_name(records: Mapping[bytes, bytes]) -> bytes:
    """The real name of a sparse entry in pax's form; b"" in the other form."""
    return records.get(_NAME, b"")


class Stored(NamedTuple):
    """A sparse entry in its archive.

    Attributes:
        name: of the entry, for refusals.
        block: its header.
        records: its pax records.
        start: the offset after the header.
        size: of the data, in the header; a map of version 1.0 is part of the data.
    """

    name: str
    block: bytes
    records: Mapping[bytes, bytes]
    start: int
    size: int


def read_sparse(reader: Reader, entry: Stored) -> tuple[Sparse, int]:
    """Read a sparse entry's map.

    Args:
        reader: the archive's bytes.
        entry: the sparse entry.

    Returns:
        The map, and the offset of the next header.

    Raises:
        Refusal: 400: the map is malformed, or has an unknown version; 413: it is too long.
    """
    name, block, records, start, size = entry
    marked = any(key.startswith(_MARK) for key in records)
    if block[156:157] == FLAG:
        if marked:
            raise _wrong(name)
        real = number(block[483:495], "size", name)
        pieces, data = _old_map(reader, block, start, name)
        left, end = size, data + padded_size(size)
    else:
        real = _real_size(records, name)
        version = records.get(_MAJOR, b"0"), records.get(_MINOR, b"1")
        if version == (b"1", b"0"):
            pieces, data = _map_in_data(reader, start, size, name)
        elif version in ((b"0", b"0"), (b"0", b"1")):
            pieces, data = _pairs(records.get(MAP, b"").split(b","), name), start
        else:
            raise Refusal(400, f"The sparse entry {shown(name)} has an unknown version.")
        left, end = size - (data - start), start + padded_size(size)
    _check(real, pieces, left, name)
    if data + left > reader.size:
        raise _wrong(name)
    return Sparse(real, [piece for piece in pieces if piece[1]], data), end


def _check(real: int, pieces: Sequence[tuple[int, int]], left: int, name: str) -> None:
    ends = [0, *(offset + length for offset, length in pieces)]
    starts = [*(offset for offset, _ in pieces), real]
    in_order = all(end <= start for end, start in zip(ends, starts, strict=True))
    if not in_order or sum(length for _, length in pieces) != left:
        raise _wrong(name)


def _wrong(name: str) -> Refusal:
    return Refusal(400, f"The sparse entry {shown(name)} has a map that does not fit its data.")


def too_many_pieces() -> Refusal:
    """The refusal of an archive whose maps are too long."""
    return Refusal(413, f"The archive's sparse files have more than {MAX_PIECES} pieces.")


def _old_map(
    reader: Reader, block: bytes, start: int, name: str
) -> tuple[list[tuple[int, int]], int]:
    """The older form: four pieces in the header, and 21 in each continuation block."""
    pieces: list[tuple[int, int]] = []
    fields, more = block[_IN_HEADER], block[482]
    while True:
        for place in range(0, len(fields), _PIECE):
            if not fields[place]:
                break
            offset = number(fields[place : place + 12], "sparse map", name)
            length = number(fields[place + 12 : place + _PIECE], "sparse map", name)
            if offset < 0 or length < 0:
                raise _wrong(name)
            pieces.append((offset, length))
        if not more:
            return pieces, start
        if len(pieces) > MAX_PIECES:
            raise too_many_pieces()
        block = reader.read(start, BLOCK)
        if len(block) < BLOCK:
            raise _wrong(name)
        start += BLOCK
        fields, more = block[_IN_BLOCK], block[504]


def _real_size(records: Mapping[bytes, bytes], name: str) -> int:
    for key in _SIZES:
        if key in records:
            return _decimal(records[key], name)
    raise _wrong(name)


def _map_in_data(
    reader: Reader, start: int, size: int, name: str
) -> tuple[list[tuple[int, int]], int]:
    """Version 1.0: a line for each decimal number, before the data: their count, and the pieces."""
    first = reader.read(start, min(size, BLOCK)).partition(b"\n")[0]
    count = _decimal(first, name)
    if count > MAX_PIECES:
        raise too_many_pieces()
    longest = len(first) + 1 + 2 * count * (_MAX_DIGITS + 1)
    lines = reader.read(start, min(size, longest)).split(b"\n", 2 * count + 1)
    numbers = lines[1 : 2 * count + 1]
    if len(lines) < 2 * count + 2:
        raise _wrong(name)
    length = sum(map(len, numbers)) + len(numbers) + len(first) + 1
    return _pairs(numbers, name), start + padded_size(length)


def _pairs(numbers: Sequence[bytes], name: str) -> list[tuple[int, int]]:
    values = [_decimal(text, name) for text in numbers]
    if len(values) % 2:
        raise _wrong(name)
    return list(zip(values[::2], values[1::2], strict=True))


def _decimal(text: bytes, name: str) -> int:
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise _wrong(name)
    return int(text)
