"""The build context of a request, served to BuildKit out of the request's archive."""

import stat
from bisect import bisect
from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from aiobuildkit import Entry, FileTree, file_mode
from aiobuildkit.fsutil.sender import order
from function_builder.context.transfers import CONTEXT_TREE
from function_builder.contract.context import DOCKERFILE, ContextEntry
from function_builder.contract.reader import Reader, read_exactly

_IGNORE_FILE: Final = ".dockerignore"


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
        return read_exactly(self._reader, self._offsets[entry.path] + offset, size)


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
