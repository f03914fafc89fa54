"""The build context of a request, served to BuildKit out of the request's archive."""

import hashlib
import os
import stat
from bisect import bisect
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Final

from aiobuildkit import Entry, FileTree, file_mode
from aiobuildkit.fsutil.sender import order
from function_builder.context.transfers import CONTEXT_TREE
from function_builder.contract.context import DOCKERFILE, ContextEntry
from function_builder.contract.reader import ReadAhead, Reader

_PIECE: Final = 256 * 1024
"""Bytes read at a time: a processor's cache still holds them when they are digested."""

_PART: Final = 4 << 20
"""Bytes of a large file that one thread digests."""

_IGNORE_FILE: Final = ".dockerignore"
_DIGESTING: Final = ThreadPoolExecutor(
    min(len(os.sched_getaffinity(0)), 8), thread_name_prefix="digest"
)
"""For all builds together: more than eight would not be read to quickly enough, and a container's
quota, which is not seen here, would be used up by them in an instant."""


class BuildContext:
    """A tree that aiobuildkit's FileSync can serve: entries with the mtimes to announce.

    Nothing is held but names and numbers; content is read from the archive when it is asked for.

    Args:
        reader: the request's archive.
        entries: its context, in BuildKit's order.
        mtimes: what to announce for each, nanoseconds since the epoch.
        resend: the numbers of those that BuildKit must take again, whatever it holds.
    """

    def __init__(
        self,
        reader: Reader,
        entries: Sequence[ContextEntry],
        mtimes: Sequence[int],
        resend: Container[int] = (),
    ) -> None:
        self._reader = reader
        modes = {mode: file_mode(mode) for mode in {entry.mode for entry in entries}}
        self._entries = [
            Entry(path, modes[mode], size, mtime, target, group, "", number in resend)
            for number, ((path, mode, size, _, target, group, _), mtime) in enumerate(
                zip(entries, mtimes, strict=True)
            )
        ]
        self._offsets = {entry.path: entry.offset for entry in entries if stat.S_ISREG(entry.mode)}

    def entries(self) -> Sequence[Entry]:
        """Return all entries, every parent before what is in it."""
        return self._entries

    def entry(self, path: str) -> Entry | None:
        """Return the entry of that path, if there is one."""
        place = _place(self._entries, path)
        found = self._entries[place - 1] if place else None
        return found if found and found.path == path else None

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of a file's content from `offset`, b"" from its end on.

        Raises:
            OSError: the archive cannot be read, or is shorter than it was.
        """
        size = max(0, min(size, entry.size - offset))
        return _read(self._reader, self._offsets[entry.path] + offset, size)


class DockerfileTree:
    """The context as the tree that BuildKit reads the Dockerfile from: with the ignore file beside.

    BuildKit looks for an ignore file of the Dockerfile's own, in the same call, and where there is
    none for `.dockerignore`, in another, which takes it as long as the first. So the one is given
    for the other: a call less in each build.

    It is for BuildKit's own frontend, which takes all that is here each time it asks. Images of
    docker/dockerfile before 1.3 go by time stamps, and that of this file says nothing: what they
    read would be right only because BuildKit's own has always just read it before them.

    Args:
        context: the build context.
        dockerfile: the Dockerfile's path there; the ignore file of its own lies beside it.
    """

    def __init__(self, context: BuildContext, dockerfile: str = DOCKERFILE) -> None:
        self._context = context
        self._alias: Entry | None = None
        self._ignore_file = context.entry(_IGNORE_FILE)
        own = f"{dockerfile}{_IGNORE_FILE}"
        parent = context.entry(own.rpartition("/")[0])
        beside = "/" not in own or (parent is not None and parent.is_directory)
        if beside and context.entry(own) is None and _is_file_or_none(self._ignore_file):
            size = self._ignore_file.size if self._ignore_file else 0
            self._alias = Entry(own, 0o644, size)

    def entries(self) -> Sequence[Entry]:
        """Return all entries of the context, and that one."""
        entries = self._context.entries()
        if self._alias is None:
            return entries
        place = _place(entries, self._alias.path)
        return [*entries[:place], self._alias, *entries[place:]]

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Return content as the context does."""
        if entry is not self._alias:
            return self._context.read(entry, offset, size)
        return self._context.read(self._ignore_file, offset, size) if self._ignore_file else b""


def recorded_entries(
    context: Sequence[ContextEntry], folders: Mapping[str, Sequence[ContextEntry]]
) -> Sequence[ContextEntry]:
    """The entries of all contexts as one list, of which a record of content is kept.

    BuildKit keeps each named context apart, by its name. So the path of an entry begins with that
    name here, and with a NUL, which no path has.
    """
    if not folders:
        return context
    entries = list(context)
    groups = max((entry.link_group for entry in entries), default=0)
    for name, folder in folders.items():
        # Names that share a file are numbered in each folder from 1.
        entries += [
            entry._replace(
                path=f"{name}\0{entry.path}",
                link_group=entry.link_group and entry.link_group + groups,
            )
            for entry in folder
        ]
        groups += max((entry.link_group for entry in folder), default=0)
    return entries


def trees(
    context: BuildContext,
    *,
    built_in: bool,
    dockerfile: str = DOCKERFILE,
    folders: Mapping[str, FileTree] = MappingProxyType({}),
) -> Mapping[str, FileTree]:
    """The directories that the Dockerfile frontend asks for, by name.

    Args:
        context: the build context.
        built_in: whether the frontend is BuildKit's own.
        dockerfile: the Dockerfile's path in the context.
        folders: the named contexts that are folders.
    """
    own = DockerfileTree(context, dockerfile) if built_in else context
    return {"dockerfile": own, CONTEXT_TREE: context, **folders}


def _is_file_or_none(entry: Entry | None) -> bool:
    # A symbolic link would have to be followed as BuildKit does it: that is left to BuildKit.
    return entry is None or not (entry.is_directory or entry.is_symlink)


def _place(entries: Sequence[Entry], path: str) -> int:
    """How many entries come before a path, or are it, in BuildKit's order."""
    return bisect(entries, order(path), key=lambda entry: order(entry.path))


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
        content = _read(ahead, entry.offset, entry.size) if entry.size else b""
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
        total.update(_read(reader, offset, min(_PIECE, end - offset)))
    return total.digest()


def _read(reader: Reader, offset: int, size: int) -> bytes:
    data = reader.read(offset, size)
    if len(data) < size:
        raise OSError("the archive ends before its index does")
    return data
