"""The archive of a request: what is made of it, and what Python's tarfile reads in it."""

import io
import stat
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice

from function_builder.contract.archive import open_archive
from function_builder.contract.context import Context, ContextEntry, read_context
from function_builder.contract.tar import Kind, Member, index
from fuzz.refusals import unless_refused
from tests.support.archives import BLOCK, Bytes, with_checksum

MAX_ENTRIES = 100
_LARGEST_READ = 1 << 20

_KINDS = {
    Kind.FILE: tarfile.REGULAR_TYPES,
    Kind.HARDLINK: (tarfile.LNKTYPE,),
    Kind.SYMLINK: (tarfile.SYMTYPE,),
    Kind.CHARACTER_DEVICE: (tarfile.CHRTYPE,),
    Kind.BLOCK_DEVICE: (tarfile.BLKTYPE,),
    Kind.FIFO: (tarfile.FIFOTYPE,),
    # The old format's directories are files whose names end in a slash.
    Kind.DIRECTORY: (tarfile.DIRTYPE, *tarfile.REGULAR_TYPES),
}


def run(data: bytes) -> None:
    """Read `data` as the body of a request."""
    reader = Bytes(data)
    context = unless_refused(lambda: _read(reader), 400, 413, 415)
    if context is not None:
        _check(context, data)
    assert reader.largest <= _LARGEST_READ
    members: list[Member] = []
    # What comes before a refusal counts too: members are handed out one by one.
    unless_refused(lambda: members.extend(index(reader, max_entries=MAX_ENTRIES)), 400, 413, 415)
    _compare(members, data)
    end = 0
    for member in members:
        assert end + BLOCK <= member.offset
        # Of a sparse file, the pieces are in the archive.
        stored = member.sparse
        begin = member.offset if stored is None else stored.offset
        end = begin + (member.size if stored is None else sum(size for _, size in stored.pieces))
        assert end <= len(data)


def mend(data: bytes) -> bytes:
    """Make the checksums of all headers right, or hardly any mutation would be looked at."""
    mended = bytearray(data)
    offset = 0
    while offset + BLOCK <= len(mended):
        block = bytes(mended[offset : offset + BLOCK])
        if block.count(0) < BLOCK:
            block = mended[offset : offset + BLOCK] = with_checksum(block)
        # What data follows may be larger than what is there.
        digits = block[124:135]
        size = int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else 0
        offset += BLOCK + -(-size // BLOCK) * BLOCK
    return bytes(mended)


def _read(reader: Bytes) -> Context:
    return read_context(open_archive(reader, max_entries=MAX_ENTRIES))


def _check(found: Context, data: bytes) -> None:
    context = {entry.path: entry for entry in found.entries}
    assert [*context] == sorted(context, key=lambda path: path.split("/"))
    for path, entry in context.items():
        parts = path.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert len(path.encode()) < 4096
        parent, _, _ = path.rpartition("/")
        assert not parent or stat.S_ISDIR(context[parent].mode)
        if stat.S_ISREG(entry.mode):
            # Sparse files are read from behind the archive's end.
            assert entry.offset >= len(data) or entry.offset + entry.size <= len(data)
        else:
            assert entry.link_group == 0
            assert stat.S_ISDIR(entry.mode) or entry.target.encode()
    assert context[found.dockerfile.path] is found.dockerfile
    assert stat.S_ISREG(found.dockerfile.mode)
    for first, second in _shared(found.entries):
        assert first._replace(path="") == second._replace(path="")


def _shared(entries: Sequence[ContextEntry]) -> Iterator[tuple[ContextEntry, ContextEntry]]:
    first: dict[int, ContextEntry] = {}
    for entry in entries:
        if entry.link_group:
            yield first.setdefault(entry.link_group, entry), entry


def _compare(members: list[Member], data: bytes) -> None:
    """What both take for an archive must mean the same to both."""
    theirs = _as_tarfile_reads(data, len(members))
    # tarfile stops without a word where a number that we do not look at is none.
    for our, their in zip(members, theirs, strict=False):
        if our.sparse is not None:
            # tarfile reads on elsewhere after some maps; tests compare these with Go's reader.
            return
        assert our.name.rstrip("/") == their.name.rstrip("/"), (our, their.name)
        assert their.type in _KINDS[our.kind], (our, their.type)
        assert our.offset == their.offset_data, (our, their.offset_data)
        assert our.kind is not Kind.FILE or our.size == their.size, (our, their.size)
        if our.kind in (Kind.SYMLINK, Kind.HARDLINK):
            assert our.target == their.linkname, (our, their.linkname)


class _TarInfo(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_TarInfo":
        info = super().frombuf(buf, encoding, errors)
        if buf[257:263] != b"ustar\0":
            # GNU tar keeps other things in the prefix's place, which tarfile takes for one.
            info = super().frombuf(with_checksum(bytes(buf[:345]) + bytes(167)), encoding, errors)
        if buf[156:157] == tarfile.AREGTYPE:
            # Whether it is a directory is for the last character of its name to say, and that may
            # come from an extended header.
            info.type = tarfile.AREGTYPE
        return info


def _as_tarfile_reads(data: bytes, most: int) -> list[tarfile.TarInfo]:
    """The first entries; further on there may be some that we refuse, and it loops for ever on."""
    try:
        with tarfile.TarFile(fileobj=io.BytesIO(data), tarinfo=_TarInfo, encoding="utf-8") as read:
            return list(islice(read, most))
    except (tarfile.TarError, OverflowError):  # the latter of a size that no memory has
        return []
