"""A directory of this machine as a tree for FileSync."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from aiobuildkit.fsutil.sender import Entry, file_mode, order

__all__ = ["LocalDirectory"]

_KINDS: Final = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO})


class LocalDirectory:
    """A directory of this machine. It is listed once, at the first request for its entries.

    Symbolic links are sent as links. Owners are not sent: as in BuildKit's own client, all files
    belong to root. Sockets and devices are left out, because a build context does not need them.

    Args:
        path: the directory; a link to one is followed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._root = os.path.realpath(path)
        self._entries: Sequence[Entry] | None = None
        self._groups: dict[tuple[int, int], int] = {}

    def entries(self) -> Sequence[Entry]:
        """See `FileTree.entries`."""
        if self._entries is None:
            self._entries = sorted(self._walk(), key=lambda entry: order(entry.path))
        return self._entries

    def _walk(self) -> Iterator[Entry]:
        waiting = self._inside("")
        while waiting:
            entry = waiting.pop()
            if entry.is_directory:
                try:
                    waiting += self._inside(entry.path)
                except FileNotFoundError:
                    continue  # it was removed meanwhile
                except OSError as error:
                    # This is an error only if entries in it are needed.
                    entry = entry._replace(unreadable=error.strerror or str(error))
            yield entry

    def _inside(self, path: str) -> list[Entry]:
        with os.scandir(f"{self._root}/{path}") as found:
            return list(filter(None, map(self._entry, found)))

    def _entry(self, found: os.DirEntry[str]) -> Entry | None:
        try:
            status = found.stat(follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            # Path.readlink would normalize the target.
            target = os.readlink(found.path) if kind == stat.S_IFLNK else ""  # noqa: PTH115 (keeps "./")
        except FileNotFoundError:
            return None  # it was removed meanwhile
        if kind not in _KINDS:
            return None
        regular = kind == stat.S_IFREG
        return Entry(
            path=found.path[len(self._root) :].lstrip("/"),
            mode=file_mode(status.st_mode),
            size=status.st_size if regular else 0,
            mtime=status.st_mtime_ns,
            target=target,
            link_group=self._group(status) if regular and status.st_nlink > 1 else 0,
        )

    def _group(self, status: os.stat_result) -> int:
        return self._groups.setdefault((status.st_dev, status.st_ino), len(self._groups) + 1)

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """See `FileTree.read`."""
        # If the file was replaced by a link, the link could point out of the directory. If by a
        # fifo, opening it would block until a process writes to it.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(f"{self._root}/{entry.path}", flags)
        try:
            content = os.pread(descriptor, size, offset)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        # Checked after the read, so that a change before or during it is noticed.
        if (status.st_size, status.st_mtime_ns) != (entry.size, entry.mtime):
            raise OSError(f"{entry.path} has changed since the build began")
        return content
