"""The build context of a request, served to BuildKit from the request's archive."""

from __future__ import annotations

import stat
from bisect import bisect
from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from aiobuildkit import Entry, FileTree, file_mode
from aiobuildkit.fsutil.sender import order
from function_builder.context.transfers import CONTEXT_TREE
from function_builder.contract.context import DOCKERFILE, ContextEntry
from function_builder.contract.manifest import AbsentContent
from function_builder.contract.reader import Reader, read_exactly

_IGNORE_FILE: Final = ".dockerignore"


class BuildContext:
    """A tree that aiobuildkit's FileSync can serve: entries with the mtimes to announce.

    Only names and numbers are in memory; content is read from the archive on request.

    Args:
        reader: the request's archive.
        entries: its context, in BuildKit's order.
        mtimes: to announce for each, nanoseconds since the epoch.
        resend: the numbers of the entries that BuildKit must receive again.
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
        """Return all entries, parents before their children."""
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
            AbsentContent: the content was not sent.
        """
        start = self._offsets[entry.path]
        if start < 0:
            # Further into the file, the sum would be an offset in the archive.
            raise AbsentContent(-1 - start)
        size = max(0, min(size, entry.size - offset))
        return read_exactly(self._reader, start + offset, size)


class DockerfileTree:
    """The context as BuildKit's tree of the Dockerfile, with the ignore file beside it.

    BuildKit asks for the Dockerfile's own ignore file in the same call. If there is none, it asks
    for `.dockerignore` in a second call, which takes as long as the first. So this tree offers
    `.dockerignore` under the first name, which saves a call in each build.

    It is only for BuildKit's own frontend, which reads all files of this tree each time. Images of
    docker/dockerfile before 1.3 compare time stamps, and this file's has no meaning. They would
    only read the right content because BuildKit's own frontend has just read it before them.

    Args:
        context: the build context.
        dockerfile: the Dockerfile's path in the context; its own ignore file is beside it.
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
        """Return all entries of the context, and the ignore file."""
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
    """The entries of all contexts as one list for the content record.

    BuildKit separates named contexts by name. So the path of an entry begins here with that name
    and a NUL, which no path contains.
    """
    if not folders:
        return context
    entries = list(context)
    groups = max((entry.link_group for entry in entries), default=0)
    for name, folder in folders.items():
        # Link groups are numbered from 1 in each folder.
        entries += [
            entry._replace(
                path=f"{name}\0{entry.path}",
                link_group=entry.link_group and entry.link_group + groups,
            )
            for entry in folder
        ]
        groups += max((entry.link_group for entry in folder), default=0)
    return entries


def absent_numbers(entries: Sequence[ContextEntry]) -> Sequence[int]:
    """The numbers of the files whose content was not sent."""
    return [number for number, entry in enumerate(entries) if entry.offset < 0]


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
    # Only BuildKit follows symbolic links.
    return entry is None or not (entry.is_directory or entry.is_symlink)


def _place(entries: Sequence[Entry], path: str) -> int:
    """The number of entries up to a path, in BuildKit's order."""
    return bisect(entries, order(path), key=lambda entry: order(entry.path))
