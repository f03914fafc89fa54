"""An index of a tar archive: its headers, and the offsets of its data.

Strategy: one pass from header to header over a Reader. It supports the common formats: POSIX ustar
and pax (IEEE Std 1003.1, pax, "Extended Description"), GNU tar (GNU tar manual, "Basic Tar Format":
long names, base-256 numbers) and the old format before them. If tar programs disagree about an
archive, it is refused. A size in a header is compared with the existing bytes before it is used. So
memory is proportional to the headers read, and does not depend on a number in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final, NamedTuple
from zlib import adler32

from function_builder.contract.errors import Refusal, shown
from function_builder.contract.reader import Reader
from function_builder.contract.sparse import (
    FLAG,
    MAP,
    MAP_PARTS,
    Sparse,
    Stored,
    is_sparse,
    joined,
    read_sparse,
    true_name,
)
from function_builder.contract.tarfields import BLOCK, number, octal, padded_size

_END: Final = bytes(BLOCK)

# Go's limit for one extended header or long name (archive/tar).
_MAX_EXTENSION: Final = 1 << 20
# Each record costs as much as a small entry, but is not counted as one. Usual headers have up to
# 20.
_MAX_RECORDS: Final = 100
_PREFIX: Final = 155
_GNU: Final = b"ustar  \0"
_MAX_TIME: Final = (1 << 63) - 1
_SECOND: Final = 1_000_000_000

_PAX_TIME: Final = re.compile(rb"(-?)(\d{1,20})(?:\.(\d*))?")
_COMPRESSIONS: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
}


class Kind(Enum):
    """The kind of an entry."""

    FILE = auto()
    DIRECTORY = auto()
    SYMLINK = auto()
    HARDLINK = auto()
    CHARACTER_DEVICE = auto()
    BLOCK_DEVICE = auto()
    FIFO = auto()


class Member(NamedTuple):
    """One entry of an archive, from its header.

    Attributes:
        name: unchanged; bytes that are not UTF-8 are surrogates (PEP 383).
        kind: its kind.
        mode: permission bits, set-user-ID, set-group-ID and sticky, at most 0o7777.
        size: bytes of a file; otherwise 0.
        mtime: nanoseconds since the epoch, limited to 64 signed bits.
        target: of a symbolic link, or the name that a hard link shares its file with.
        offset: of its data in the archive.
        sparse: the map of a sparse file.
    """

    name: str
    kind: Kind
    mode: int
    size: int
    mtime: int
    target: str
    offset: int
    sparse: Sparse | None = None


_KINDS: Final = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
    FLAG: Kind.FILE,
}
_LONG: Final = {b"L": b"path", b"K": b"linkpath"}

_Records = dict[bytes, bytes]


def index(reader: Reader, *, max_entries: int) -> Iterator[Member]:
    """Yield the entries of the archive in `reader`, in order, and check its end.

    Raises:
        Refusal: 413: more than `max_entries` entries; 415: compressed; 400: not a tar, incomplete,
            or ambiguous.
    """
    shared: _Records = {}
    own: _Records = {}
    extensions = b""
    count = offset = 0
    while (block := _header(reader, offset)) != _END:
        flag = block[156:157]
        if flag in b"xLK":
            if flag in extensions:
                raise Refusal(400, f"The archive has two '{flag.decode()}' headers for one entry.")
            extensions += flag
            records, offset = _extension(reader, block, offset)
            _check_agreement(own, records)
            own |= records
            continue
        count += 1
        if count > max_entries:
            raise Refusal(413, f"The archive has more than {max_entries} entries.")
        if flag == b"g":
            records, offset = _extension(reader, block, offset)
            shared |= _shared(records)
            continue
        member, offset = _member(reader, block, offset, shared | own if shared else own)
        yield member
        own, extensions = {}, b""
    if extensions:
        raise Refusal(400, "The archive ends after an extended header, before the entry it is for.")
    _check_rest(reader, offset + BLOCK)


def _header(reader: Reader, offset: int) -> bytes:
    """The header block at `offset`, with a correct checksum, or the zeros that end the archive.

    As in Go's archive/tar and GNU tar, an archive may also end without them, after the data of its
    last entry. A body that was cut during its transfer has a wrong signature.
    """
    block = reader.read(offset, BLOCK)
    if not block and offset:
        return _END
    if len(block) == BLOCK and (block == _END or _sums_up(block)):
        return block
    if offset == 0:
        for magic, name in _COMPRESSIONS.items():
            if block.startswith(magic):
                raise Refusal(415, f"The body is compressed ({name}): send the plain tar.")
        raise Refusal(400, "The body is not a tar archive.")
    if len(block) < BLOCK:
        raise _cut_short("the header of an entry")
    raise Refusal(400, f"The archive is damaged: bad header checksum at byte {offset}.")


def _cut_short(where: str) -> Refusal:
    return Refusal(400, f"The archive is cut short at {where}. Was it sent whole?")


def _sums_up(block: bytes) -> bool:
    """Whether the header's checksum is correct, of unsigned bytes, or signed as in old tars."""
    given = octal(block[148:156])
    if not given:
        # The field itself counts as spaces, so a header's sum is not 0. But the sum of signed bytes
        # of # compressed zeros may be.
        return False
    summed = block[:148] + b"        " + block[156:]
    if summed.isascii():
        # The lower half of Adler-32 (RFC 1950) is 1 plus the sum modulo 65521, which 512 bytes of #
        # ASCII do not reach. It is ten times as fast as sum().
        return given == (adler32(summed) & 0xFFFF) - 1
    unsigned = sum(summed)
    return given == unsigned or given == unsigned - 256 * sum(byte > 127 for byte in summed)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _member(reader: Reader, block: bytes, offset: int, records: _Records) -> tuple[Member, int]:
    """The entry with the header `block`, and the offset of the next header."""
    name = _name(block, records)
    flag = block[156:157]
    kind = _KINDS.get(flag)
    if kind is None:
        raise Refusal(400, f"The entry {shown(name)} has a type that few tar programs support.")
    start = end = offset + BLOCK
    size = 0
    sparse = None
    holes = is_sparse(flag, records, name)
    if holes and kind is not Kind.FILE:
        raise Refusal(400, f"The entry {shown(name)} is stored as sparse, but is not a file.")
    claimed = _size(block, records, name)
    # Only a file's header is followed by data. Some writers put a directory's size on disk into its
    # header, where all readers ignore it. For other kinds, some readers skip as many bytes.
    if claimed and kind is not Kind.FILE and (kind is not Kind.DIRECTORY or b"size" in records):
        raise Refusal(400, f"The entry {shown(name)} has a size, but is not a file.")
    if kind is Kind.FILE:
        size = claimed
        if start + size > reader.size:
            raise _cut_short(shown(name))
        end = start + padded_size(size)
        if holes:
            sparse, end = read_sparse(reader, Stored(name, block, records, start, size))
            size = sparse.size
        old = flag == b"\0" and _text(block[:100]).endswith(b"/")
        if old or name.endswith("/"):
            # The old format has no type for directories. For newer types, some readers make a file,
            # and # some only check the name in the header.
            kind = Kind.DIRECTORY
            if size or not old or not name.endswith("/"):
                raise Refusal(400, f"The entry {shown(name)} ends with '/', but is a file.")
    target = _text(records.get(b"linkpath") or block[157:257])
    mode = number(block[100:108], "mode", name) & 0o7777
    mtime = _mtime(block, records, name)
    decoded = target.decode("utf-8", "surrogateescape")
    return Member(name, kind, mode, size, mtime, decoded, start, sparse), end


def _name(block: bytes, records: _Records) -> str:
    prefix = _gnu_times(block) if block[257:265] == _GNU else _prefix(block)
    name = true_name(records) or records.get(b"path")
    if not name:
        name = prefix + _text(block[:100])
    return name.decode("utf-8", "surrogateescape")


def _gnu_times(block: bytes) -> bytes:
    """Check the fields that GNU's format has instead of a prefix: times and a sparse map.

    Go, GNU tar and bsdtar agree about such a name; Python's tarfile reads the times as a prefix.
    If the times are invalid, or a file that is not sparse has a map, the readers disagree.

    Returns:
        An empty prefix.
    """
    times = block[345:357], block[357:369]
    unread = block[386:483] if block[156:157] != b"S" else b""
    if any(unread) or not all(field[0] & 0x80 or octal(field) is not None for field in times):
        raise _no_prefix()
    return b""


def _prefix(block: bytes) -> bytes:
    """The prefix of the name, including the slash. star stores other fields after it."""
    if not block[345]:
        return b""
    longest = block[345:476] if block[508:] == b"tar\0" else block[345:500]
    if block[257:263] != b"ustar\0" or (len(longest) < _PREFIX and b"\0" not in longest):
        raise _no_prefix()
    return _text(longest) + b"/"


def _no_prefix() -> Refusal:
    return Refusal(
        400, "The header of an entry has a prefix of its name, in a format without prefixes."
    )


def _size(block: bytes, records: _Records, name: str) -> int:
    text = records.get(b"size")
    if not text:
        size = number(block[124:136], "size", name)
    else:
        size = int(text) if text.isdigit() and len(text) < 20 else -1
    if size < 0:
        raise Refusal(400, f"The entry {shown(name)} has an invalid size.")
    return size


def _mtime(block: bytes, records: _Records, name: str) -> int:
    text = records.get(b"mtime")
    if not text:
        time = number(block[136:148], "modification time", name) * _SECOND
    else:
        match = _PAX_TIME.fullmatch(text)
        if match is None:
            raise Refusal(400, f"The entry {shown(name)} has an invalid modification time.")
        sign, seconds, fraction = match.groups(b"")
        time = int(seconds) * _SECOND + int(fraction[:9].ljust(9, b"0"))
        time = -time if sign else time
    return max(-_MAX_TIME - 1, min(time, _MAX_TIME))


def _extension(reader: Reader, block: bytes, offset: int) -> tuple[_Records, int]:
    """The data of a pax header or a GNU long name, and the offset of the next header."""
    what = "extended header"
    size = number(block[124:136], "size", what)
    if not 0 <= size <= _MAX_EXTENSION:
        raise Refusal(400, f"An {what} of the archive is larger than 1 MiB.")
    following = offset + BLOCK + -(-size // BLOCK) * BLOCK
    blocks = reader.read(offset + BLOCK, following - offset - BLOCK)
    data, padding = blocks[:size], blocks[size:]
    if len(data) < size:
        raise _cut_short(f"an {what}")
    if padding.strip(b"\0"):
        # Some readers read a long name to the first NUL, and Python's tarfile reads records there.
        raise Refusal(400, f"An {what} of the archive has bytes after its end.")
    long = _LONG.get(block[156:157])
    records = {long: _text(data)} if long else _pax_records(data)
    for key in (b"path", b"linkpath", b"size"):
        # Some readers then use the header's value, others an empty one.
        if records.get(key) == b"":
            raise Refusal(400, f"An {what} of the archive has an empty {key.decode()}.")
    return records, following


def _pax_records(data: bytes) -> _Records:
    """The records of a pax header, the last of equal keys, without empty values."""
    records: _Records = {}
    sparse_map: list[tuple[bytes, bytes]] = []
    start = 0
    for _ in range(_MAX_RECORDS):
        if start == len(data):
            break
        digits = data[start : start + 8].partition(b" ")[0]
        end = start + int(digits) if digits.isdigit() else 0
        key, equals, value = data[start + len(digits) + 1 : end - 1].partition(b"=")
        if not key or not equals or data[end - 1 : end] != b"\n":
            raise Refusal(400, "The archive is damaged: a pax header has a malformed record.")
        if key in MAP_PARTS:
            sparse_map.append((key, value))
        records[key] = value
        start = end
    else:
        raise Refusal(400, f"A pax header has {_MAX_RECORDS} records or more.")
    if sparse_map:
        records[MAP] = joined(sparse_map)
    for key in (b"path", b"linkpath", b"GNU.sparse.name"):
        if b"\0" in records.get(key, b""):
            raise Refusal(400, f"A pax header has a {key.decode()} with a NUL in it.")
    return records


def _check_agreement(own: _Records, records: _Records) -> None:
    """Refuse two extended headers with different names for one entry, because readers disagree.

    Java's commons-compress writes equal names in GNU's form and in pax's.
    """
    for key in own.keys() & records.keys():
        if own[key] != records[key]:
            one, other = (shown(text[key].decode("utf-8", "replace")) for text in (own, records))
            raise Refusal(400, f"The archive has two names for one entry: {one} and {other}.")


def _shared(records: _Records) -> _Records:
    """The only value of a global header that is used: the mtime of the entries after it."""
    for key in records:
        if key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU.sparse."):
            raise Refusal(400, f"A global pax header gives every entry the same {key.decode()}.")
    # Other values are dropped, because each entry would take time for every record of this header.
    return {b"mtime": records[b"mtime"]} if b"mtime" in records else {}


def _check_rest(reader: Reader, offset: int) -> None:
    """Refuse bytes after the end, which another reader could read as entries."""
    while chunk := reader.read(offset, 1 << 18):
        if chunk != bytes(len(chunk)):
            raise Refusal(400, "The archive has data after its end-of-archive marker.")
        offset += len(chunk)
