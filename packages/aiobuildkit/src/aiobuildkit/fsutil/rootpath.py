"""Find the file of a tree that BuildKit reads for a path, such as the Dockerfile, through links.

BuildKit reads from the files that it received, by continuity's `fs.RootPath` (`fs/path.go`):
the tree is the root, at most 255 links are followed, and a `..` in a link's target is resolved
lexically in some places and by the file system in others. This module does the same steps.

Some steps ask the kernel of BuildKit's machine about a path with a link in the middle. The kernel
follows it on that machine, out of the tree. Such a path cannot be resolved here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from aiobuildkit.fsutil.filepath import clean
from aiobuildkit.fsutil.filter import Wanted, pieces
from aiobuildkit.fsutil.sender import Entry

__all__ = ["UnclearPath", "file_read"]

_MAX_LINKS: Final = 255
_MAX_KERNEL_LINKS: Final = 40
_MAX_NAME_BYTES: Final = 255
_MAX_PATH_BYTES: Final = 3840
"""Linux's PATH_MAX minus the longest path at which BuildKit mounts the tree."""


class UnclearPath(ValueError):
    """The file of a path depends on the files of BuildKit's machine."""


class _Fails(Exception):
    """The kernel fails with another error than that the file does not exist."""


def file_read(entries: Sequence[Entry], follow: Iterable[str], path: str) -> Entry | None:
    """The regular file that BuildKit reads for a path; None if there is none.

    Args:
        entries: the tree, in fsutil's order.
        follow: the paths that BuildKit asks for in the call that fetches the file.
        path: one of them.

    Raises:
        UnclearPath: the file depends on BuildKit's machine.
        BadPattern: a link's target, which is read as a pattern, is malformed or too costly.
    """
    wanted = Wanted(follow=tuple(follow))
    sent = {entry.path: entry for piece in pieces(entries, wanted) for entry in piece}
    try:
        found = sent.get(_RootPath(sent).resolve(path))
    except _Fails:
        return None
    return None if found is None or found.is_directory or found.is_symlink else found


class _RootPath:
    """The steps of `fs.RootPath`."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries
        self._links = 0

    def resolve(self, path: str) -> str:
        """The path in the tree, without links."""
        while True:
            before = self._links
            path = self._walk(path)
            if self._links == before:
                rooted = clean(f"/{path}")
                if path == rooted:
                    return path[1:]
                path = rooted

    def _walk(self, path: str) -> str:
        """Follow a link at each place of a path, once (`walkLinks`)."""
        current = "/" if path.startswith("/") else ""
        for name in filter(None, path.split("/")):
            found, is_link = self._step(clean(f"{current}/{name}") if current else name)
            if current and is_link and not found.startswith("/"):
                found = clean(f"{current}/{found}")
            current = found
        return current

    def _step(self, path: str) -> tuple[str, bool]:
        """The target of a link, or the path itself (`walkLink`)."""
        if self._links > _MAX_LINKS:
            raise _Fails
        path = clean(f"/{path}")
        entry = self._lstat(path)
        if entry is None or not entry.is_symlink:
            return path, False
        self._links += 1
        return entry.target, True

    def _lstat(self, path: str) -> Entry | None:
        """The entry that the kernel finds; it follows links in the middle of a path."""
        if len(path.encode()) > _MAX_PATH_BYTES:
            raise UnclearPath(path)
        current: list[str] = []
        ahead = path.split("/")[::-1]
        links = 0
        while len(ahead) > 1:
            name = ahead.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if not current:
                    raise UnclearPath(path)
                current.pop()
                continue
            entry = self._at(current, name)
            if entry is None:
                return None
            if entry.is_directory:
                current.append(name)
            elif entry.is_symlink and links < _MAX_KERNEL_LINKS:
                links += 1
                if entry.target.startswith("/"):
                    raise UnclearPath(path)
                ahead += entry.target.split("/")[::-1]
            else:
                raise _Fails
        return self._at(current, ahead[0])

    def _at(self, directory: Sequence[str], name: str) -> Entry | None:
        if len(name.encode()) > _MAX_NAME_BYTES:
            raise _Fails
        return self._entries.get("/".join([*directory, name]))
