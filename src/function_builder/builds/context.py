"""The build context of a request, served to BuildKit out of the request's archive."""

import hashlib
import stat
from collections.abc import Sequence
from typing import Final

from aiobuildkit import Entry, file_mode
from function_builder.contract.archive import ContextEntry
from function_builder.contract.tar import Reader

_PIECE: Final = 1 << 20


class BuildContext:
    """A tree that aiobuildkit's FileSync can serve: entries with the mtimes to announce.

    Nothing is held but names and numbers; content is read from the archive when it is asked for.

    Args:
        reader: the request's archive.
        entries: its context, in BuildKit's order.
        mtimes: what to announce for each, nanoseconds since the epoch.
    """

    def __init__(
        self, reader: Reader, entries: Sequence[ContextEntry], mtimes: Sequence[int]
    ) -> None:
        self._reader = reader
        self._entries = [
            Entry(
                path=entry.path,
                mode=file_mode(entry.mode),
                size=entry.size,
                mtime=mtime,
                target=entry.target,
                link_group=entry.link_group,
            )
            for entry, mtime in zip(entries, mtimes, strict=True)
        ]
        self._offsets = {entry.path: entry.offset for entry in entries if stat.S_ISREG(entry.mode)}

    def entries(self) -> Sequence[Entry]:
        """Return all entries, every parent before what is in it."""
        return self._entries

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of a file's content from `offset`, b"" from its end on.

        Raises:
            OSError: the archive cannot be read, or is shorter than it was.
        """
        size = max(0, min(size, entry.size - offset))
        return _read(self._reader, self._offsets[entry.path] + offset, size)


def content_digests(reader: Reader, entries: Sequence[ContextEntry]) -> list[bytes]:
    """Digest what each entry holds: a file's bytes, a symbolic link's target, b"" for a directory.

    One pass over the archive, from its start to its end. SHA-256, because equal digests are taken
    for equal content, with no second look: it must not be made to collide, and processors compute
    it (46 MB in 10,000 files: 0.03 s with those instructions, BLAKE2b 0.05 s, SHA-256 without them
    about 0.15 s). It runs for seconds on a large archive: call it in a thread.

    Raises:
        OSError: the archive cannot be read, or is shorter than it was.
    """
    digests = [b""] * len(entries)
    groups: dict[int, bytes] = {}
    for number in sorted(range(len(entries)), key=lambda number: entries[number].offset):
        entry = entries[number]
        if stat.S_ISLNK(entry.mode):
            digests[number] = hashlib.sha256(b"link " + entry.target.encode()).digest()
        elif stat.S_ISREG(entry.mode):
            digests[number] = groups.get(entry.link_group) or _digest(reader, entry)
            if entry.link_group:
                groups[entry.link_group] = digests[number]
    return digests


def _digest(reader: Reader, entry: ContextEntry) -> bytes:
    total = hashlib.sha256()
    end = entry.offset + entry.size
    for start in range(entry.offset, end, _PIECE):
        total.update(_read(reader, start, min(_PIECE, end - start)))
    return total.digest()


def _read(reader: Reader, offset: int, size: int) -> bytes:
    data = reader.read(offset, size)
    if len(data) < size:
        raise OSError("the archive ends before its index does")
    return data
