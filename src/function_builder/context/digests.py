"""Digests of what a build context's entries hold."""

import hashlib
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from function_builder.contract.context import ContextEntry
from function_builder.contract.reader import ReadAhead, Reader, read_exactly

_PIECE: Final = 256 * 1024
"""Bytes read at a time: a processor's cache still holds them when they are digested."""

_PART: Final = 4 << 20
"""Bytes of a large file that one thread digests."""

_DIGESTING: Final = ThreadPoolExecutor(
    min(len(os.sched_getaffinity(0)), 8), thread_name_prefix="digest"
)
"""For all builds together: more than eight would not be read to quickly enough, and a container's
quota, which is not seen here, would be used up by them in an instant."""


def content_digests(reader: Reader, entries: Sequence[ContextEntry]) -> list[bytes]:
    """Digest what each entry holds: a file's bytes, a symbolic link's target, b"" for a directory.

    One pass over the archive, from its start to its end. SHA-256, because equal digests are taken
    for equal content, with no second look: it must not be made to collide, and processors compute
    it (46 MB in 10,000 files: 0.03 s with those instructions, BLAKE2b 0.05 s, SHA-256 without them
    about 0.15 s). It runs for seconds on a large archive: call it in a thread.

    Raises:
        OSError: the archive cannot be read, or is shorter than it was.
    """
    ahead = ReadAhead(reader)
    digests = [b""] * len(entries)
    groups: dict[int, bytes] = {}
    for number in sorted(range(len(entries)), key=lambda number: entries[number].offset):
        entry = entries[number]
        if stat.S_ISLNK(entry.mode):
            digests[number] = hashlib.sha256(b"link " + entry.target.encode()).digest()
        elif stat.S_ISREG(entry.mode):
            digests[number] = groups.get(entry.link_group) or _digest(reader, ahead, entry)
            if entry.link_group:
                groups[entry.link_group] = digests[number]
    return digests


def _digest(reader: Reader, ahead: Reader, entry: ContextEntry) -> bytes:
    """Digest a file; a large one in parts, side by side, and then their digests."""
    if entry.size <= _PIECE:
        content = read_exactly(ahead, entry.offset, entry.size) if entry.size else b""
        return hashlib.sha256(content).digest()
    end = entry.offset + entry.size
    starts = range(entry.offset, end, _PART)
    if len(starts) == 1:
        return _digest_part(reader, entry.offset, end)
    parts = _DIGESTING.map(
        lambda start: _digest_part(reader, start, min(start + _PART, end)), starts
    )
    # Marked: a small file that holds these digests is another content.
    return hashlib.sha256(b"".join(parts)).digest() + b"parts"


def _digest_part(reader: Reader, start: int, end: int) -> bytes:
    total = hashlib.sha256()
    for offset in range(start, end, _PIECE):
        total.update(read_exactly(reader, offset, min(_PIECE, end - offset)))
    return total.digest()
