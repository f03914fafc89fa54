"""Files that are read together, and the check whether one of them has changed since."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeAlias

_Stamp: TypeAlias = tuple[int, int, int, int] | None
"""A file's status: inode, size, mtime and ctime; None: it does not exist."""


class Files:
    """Reads files, and remembers their status, also of files that do not exist."""

    def __init__(self) -> None:
        self._read: dict[Path, _Stamp] = {}
        self._digests: dict[Path, str] = {}

    def read(self, path: Path) -> bytes:
        """A file's content.

        Raises:
            OSError: it cannot be read.
        """
        # Before the content, so that `changed` notices a change in between.
        self._read[path] = _stamp(path)
        content = path.read_bytes()
        self._digests[path] = hashlib.sha256(content).hexdigest()
        return content

    def digest(self, path: Path) -> str:
        """The SHA-256 of a file's content, in hex; empty if it was not read."""
        return self._digests.get(path, "")

    def changed(self) -> bool:
        """Whether the status of one of them differs from when it was read."""
        return any(_stamp(path) != stamp for path, stamp in self._read.items())


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
