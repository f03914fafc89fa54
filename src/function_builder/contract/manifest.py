"""A manifest: the entries of a request, of which the archive has only some contents.

A client sends it instead of `context/`, so that files that BuildKit already has need not travel.
The archive then has, beside the config::

    com.function-builder.manifest            the table of all entries
    com.function-builder.content/<digest>    a content, once for all files that have it

An older builder refuses such an archive, because it has no `context/` folder. So no builder can
take the table for a context with empty files.

The manifest begins with `FBM2`, the number of rows, the size of the table, and the digest of every
row. The table follows, compressed (zlib, RFC 1950): the rows, and then strings that each end with
NUL, which are the path of every row, and the target of every link, in the order of rows. All
numbers are big-endian. So a file takes about 40 bytes, of which the digest cannot be compressed.
JSON lines of the same take 150, and twice the time to read.
"""

from __future__ import annotations

import hashlib
import stat
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise, repeat
from struct import Struct
from typing import Final, NamedTuple

from function_builder.contract.errors import Refusal, shown
from function_builder.contract.reader import Reader
from function_builder.contract.tar import Kind, Member

MANIFEST_HEADER: Final = "X-Build-Manifest"
"""The header of an answer by which a builder says that it understands manifests; its value is 1."""

MANIFEST_NAME: Final = "com.function-builder.manifest"
CONTENT: Final = "com.function-builder.content"

SMALL_BYTES: Final = 256 * 1024
"""The files of a smaller context are always sent, because a question would take longer."""

PART_BYTES: Final = 4 << 20
"""The digest of a larger content is that of its parts' digests, so that threads can share it."""

_MAGIC: Final = b"FBM2"
_HEAD: Final = Struct(">4sII")
_ROW: Final = Struct(">IQq")
_DIGEST_BYTES: Final = 32
_LEVEL: Final = 1
"""Of the compression: a higher level saves a few percent, and takes several times as long."""

_MAX_STRINGS: Final = 64 << 20
_FEW_STRINGS: Final = 1 << 20
_STRINGS_OF_A_ROW: Final = 1 << 10
"""Bytes of strings that a row may add to `_FEW_STRINGS`. Otherwise a small body could hold
`_MAX_STRINGS`, because zlib compresses equal bytes a thousandfold."""
_MAX_RANGES: Final = 1000
_NO_DIGEST: Final = bytes(_DIGEST_BYTES)
_KIND_BITS: Final = 0o170000
_MODE_BITS: Final = 0o7777
_LINKS: Final = (stat.S_IFLNK, 0)
_KINDS: Final = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    0: Kind.HARDLINK,
}


class Row(NamedTuple):
    """One entry of a manifest.

    Attributes:
        path: in the archive that the manifest stands for, such as `context/Dockerfile`.
        mode: in the form of `st_mode`; a hard link has no type bits.
        size: bytes of a file; otherwise 0.
        mtime: nanoseconds since the epoch.
        target: of a symbolic link; the path in the archive that a hard link shares its file with.
        digest: of a file's content, 32 bytes: its SHA-256, or for a file above `PART_BYTES` the
            SHA-256 of the SHA-256s of its parts; otherwise zeros.
    """

    path: str
    mode: int
    size: int
    mtime: int
    target: str = ""
    digest: bytes = _NO_DIGEST


class Listed(NamedTuple):
    """What a manifest says.

    Attributes:
        members: its entries as members of an archive. The offset of a file whose content was not
            sent is -1 minus the number of its row.
        claims: the digest of each file, in the form of `recorded`, by its offset.
    """

    members: Sequence[Member]
    claims: Mapping[int, bytes]


class AbsentContent(OSError):
    """A content was read that the client did not send.

    Attributes:
        row: the number of its row.
    """

    def __init__(self, row: int) -> None:
        super().__init__("a file that was not sent is needed")
        self.row = row


class MissingContent(Refusal):
    """The answer to a manifest whose contents are not all here; the client sends these.

    Attributes:
        ranges: the rows whose content is needed, as pairs of the first and the number. Of more than
            1,000 ranges, those with the smallest gaps between them are joined.
    """

    def __init__(self, rows: Iterable[int]) -> None:
        super().__init__(
            409, "the builder lacks the content of files of the manifest: send those of `missing`"
        )
        self.ranges = _ranges(sorted(set(rows)))
        self.members = {"missing": self.ranges}


class SentContent:
    """A reader that refuses to read what was not sent."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._reader.size

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only where the bytes end.

        Raises:
            AbsentContent: the offset is that of a content that was not sent.
        """
        if offset < 0:
            raise AbsentContent(-1 - offset)
        return self._reader.read(offset, size)


def content_name(digest: bytes) -> str:
    """The name of a content in the archive."""
    return f"{CONTENT}/{digest.hex()}"


def content_digest(parts: Iterable[bytes]) -> bytes:
    """Digest a content.

    Args:
        parts: its bytes in pieces of `PART_BYTES`, the last one shorter.
    """
    digests = [hashlib.sha256(part).digest() for part in parts] or [hashlib.sha256().digest()]
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()


def recorded(digest: bytes, size: int) -> bytes:
    """A content's digest as the builder keeps it.

    A large content's has a suffix, because a small content may be the digests of its parts.
    """
    return digest + b"parts" if size > PART_BYTES else digest


def pack_manifest(rows: Sequence[Row]) -> bytes:
    """Write a manifest.

    Raises:
        UnicodeEncodeError: a path or a target is not UTF-8.
    """
    pack = _ROW.pack
    table = [pack(mode, size, mtime) for _, mode, size, mtime, _, _ in rows]
    strings = [row[0] for row in rows]
    strings += [target for _, mode, _, _, target, _ in rows if mode & _KIND_BITS in _LINKS]
    table.append("\0".join([*strings, ""]).encode())
    whole = b"".join(table)
    head = _HEAD.pack(_MAGIC, len(rows), len(whole))
    return b"".join([head, *(row[5] for row in rows), zlib.compress(whole, _LEVEL)])


def read_manifest(reader: Reader, member: Member, *, max_entries: int) -> Sequence[Row]:
    """Read the manifest of an archive.

    Args:
        reader: of the archive.
        member: the manifest's entry.
        max_entries: the most rows.

    Raises:
        Refusal: 400 or 413. Memory is only used for rows that exist.
    """
    magic, count, size = _MAGIC, 0, 0
    if member.size >= _HEAD.size:
        magic, count, size = _HEAD.unpack(reader.read(member.offset, _HEAD.size))
    if magic != _MAGIC or not count:
        raise _malformed("it is not the table that this builder reads")
    if count > max_entries:
        raise Refusal(413, f"The manifest has more than {max_entries} entries.")
    digests_size, rows_size = count * _DIGEST_BYTES, count * _ROW.size
    strings, packed = size - rows_size, member.size - _HEAD.size - digests_size
    if strings < 0 or packed < 0:
        raise _malformed("it is cut short")
    if strings > min(_MAX_STRINGS, _FEW_STRINGS + count * _STRINGS_OF_A_ROW):
        raise Refusal(413, "The names in the manifest are too long in total.")
    # zlib adds less, also to what it cannot compress.
    if packed > size + size // 1000 + 64:
        raise _malformed("something follows its table")
    data = reader.read(member.offset + _HEAD.size, digests_size + packed)
    table = _inflated(data[digests_size:], size)
    try:
        *texts, rest = table[rows_size:].decode().split("\0")
    except UnicodeDecodeError:
        raise _malformed("a path or a target is not UTF-8") from None
    digests = [data[at : at + _DIGEST_BYTES] for at in range(0, digests_size, _DIGEST_BYTES)]
    # Columns, because a loop over the rows takes three times as long.
    modes, sizes, mtimes = zip(*_ROW.iter_unpack(table[:rows_size]), strict=True)
    linked = {mode for mode in set(modes) if mode & _KIND_BITS in _LINKS}
    links = [number for number, mode in enumerate(modes) if mode in linked] if linked else []
    if rest or len(texts) != count + len(links):
        raise _malformed("it does not have one path for each row and one target for each link")
    targets = [""] * count
    for number, target in zip(links, texts[count:], strict=True):
        targets[number] = target
    fields = zip(texts[:count], modes, sizes, mtimes, targets, digests, strict=True)
    # `Row(…)` itself takes twice the time of the tuple that it makes.
    return list(map(tuple.__new__, repeat(Row), fields))


def _inflated(packed: bytes, size: int) -> bytes:
    """The table of a manifest; no more of it is in memory than the head says."""
    inflate = zlib.decompressobj()
    try:
        table = inflate.decompress(packed, size + 1)
    except zlib.error:
        raise _malformed("its table is not compressed by zlib") from None
    if len(table) != size or not inflate.eof or inflate.unused_data:
        raise _malformed("its table does not have the size that it names")
    return table


def listed(rows: Sequence[Row], contents: Mapping[str, Member], *, max_bytes: int) -> Listed:
    """Look up each row's content among those that were sent.

    Args:
        rows: of the manifest.
        contents: the archive's entries by name.
        max_bytes: the most bytes of all files together, sent or not.

    Raises:
        Refusal: 400: a row is malformed, or not like its content; 413: the files are too large.
    """
    sent = _by_digest(contents)
    modes = {row.mode for row in rows}
    kinds = {mode: None if mode >> 16 else _KINDS.get(mode & _KIND_BITS) for mode in modes}
    new, file, members = tuple.__new__, Kind.FILE, []
    claims: dict[int, bytes] = {}
    total = 0
    for number, row in enumerate(rows):
        path, mode, size, mtime, target, digest = row
        kind = kinds[mode]
        offset = 0
        if kind is file:
            content = sent.get(digest)
            offset = -1 - number if content is None else _offset(row, content)
            claims[offset] = digest if size <= PART_BYTES else recorded(digest, size)
            total += size
        elif kind is None:
            raise _malformed(f"the row of {shown(path)} has no kind")
        elif size or digest != _NO_DIGEST:
            raise _malformed(f"{shown(path)} has a size or a digest, but is not a file")
        member = (path, kind, mode & _MODE_BITS, size, mtime, target, offset, None)
        members.append(new(Member, member))
    if len({row.path for row in rows}) < len(rows):
        twice = next(path for path, times in Counter(row.path for row in rows).items() if times > 1)
        raise _malformed(f"the row of {shown(twice)} is there twice")
    if total > max_bytes:
        raise Refusal(413, f"The files of the manifest are larger than {max_bytes} bytes.")
    return Listed(members, claims)


def _by_digest(contents: Mapping[str, Member]) -> Mapping[bytes, Member]:
    """The contents of an archive by their digests."""
    sent = {}
    for name, member in contents.items():
        folder, _, digest = name.partition("/")
        if folder == CONTENT:
            with suppress(ValueError):
                sent[bytes.fromhex(digest)] = member
    return sent


def _offset(row: Row, content: Member) -> int:
    """Where the content of a file is."""
    if content.kind is not Kind.FILE or content.size != row.size:
        raise Refusal(
            400,
            f"The manifest gives {shown(row.path)} a size of {row.size} bytes,"
            f" but its content has {content.size}.",
        )
    return content.offset


def _ranges(rows: Sequence[int]) -> list[list[int]]:
    """Rows as pairs of the first and the number; the smallest gaps are closed if there are many."""
    gaps = sorted((after - before for before, after in pairwise(rows)), reverse=True)
    least = gaps[_MAX_RANGES - 1] if len(gaps) >= _MAX_RANGES else 1
    ranges: list[list[int]] = []
    for row in rows:
        if ranges and row - sum(ranges[-1]) < max(least, 1):
            ranges[-1][1] = row - ranges[-1][0] + 1
        else:
            ranges.append([row, 1])
    return ranges


def _malformed(why: str) -> Refusal:
    return Refusal(400, f"The manifest is malformed: {why}.")
