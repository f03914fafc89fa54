"""The digests of a directory's files from earlier builds, so that unchanged files are not read.

A file counts as unchanged if its size, times, inode and device are, as in git's index. A file that
was written less than two seconds before it was read is read again: it may have changed without
another time.

The cache is a file for each directory, in `$XDG_CACHE_HOME/function-builder/contexts`. It may be
lost or damaged at any time. The files are then read once more.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from struct import Struct
from typing import Final

from function_builder.client.context import FoundEntry

_ROW: Final = Struct(">QqqQQ32s")
_MAGIC: Final = b"FBC1"
_CHECKSUM_BYTES: Final = 32
_SETTLED_NS: Final = 2_000_000_000
"""The coarsest times of a file system (FAT) are two seconds apart."""

_MOST_DIRECTORIES: Final = 100

_identity: Final = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev")
_NO_FILE: Final = (0, 0, 0, 0, 0)
_Known = tuple[int, int, int, int, int, bytes]


class StatCache:
    """The digests of files of one directory.

    Args:
        directory: the build context.
        folder: the directory of the caches; None: nothing is stored.
        clock: nanoseconds since the epoch.
    """

    def __init__(
        self, directory: Path, folder: Path | None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        name = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:32]
        self._file = folder / name if folder else None
        self._clock = clock
        self._known = _read(self._file) if self._file else {}
        self._next: dict[str, _Known] = {}

    def known(self, files: Iterable[FoundEntry]) -> Mapping[str, bytes]:
        """The digests of those files that are unchanged.

        Args:
            files: of the directory, with their status now.
        """
        kept, found, digests = self._known, self._next, {}
        for path, _, status in files:
            known = kept.get(path)
            if known is not None and known[:-1] == _identity(status):
                found[path] = known
                digests[path] = known[-1]
        return digests

    def put(self, path: str, status: os.stat_result, digest: bytes) -> None:
        """Store a file's digest, unless the file may have changed since it was read.

        Args:
            path: in the directory.
            status: of the file when it was read.
            digest: of its content.
        """
        settled = max(status.st_mtime_ns, status.st_ctime_ns) < self._clock() - _SETTLED_NS
        self._next[path] = (*(_identity(status) if settled else _NO_FILE), digest)

    def last(self, path: str) -> bytes | None:
        """A file's digest in the last build, which it may no longer have."""
        known = self._known.get(path)
        return known[-1] if known else None

    def write(self) -> None:
        """Write the digests that were used in this build, in place of the earlier ones."""
        if self._file is None or self._next == self._known:
            return
        rows = b"".join(_ROW.pack(*known) for known in self._next.values())
        names = b"".join(os.fsencode(path) + b"\0" for path in self._next)
        body = len(self._next).to_bytes(4) + rows + names
        with suppress(OSError):
            _replace(self._file, _MAGIC + hashlib.sha256(body).digest() + body)


def default_folder(name: str) -> Path | None:
    """The user's cache directory of that name; None if the user has no home directory."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "function-builder" / name


def _read(file: Path) -> Mapping[str, _Known]:
    try:
        data = file.read_bytes()
    except OSError:
        return {}
    start = len(_MAGIC) + _CHECKSUM_BYTES
    body = data[start:]
    if data[:start] != _MAGIC + hashlib.sha256(body).digest():
        return {}
    names = 4 + int.from_bytes(body[:4]) * _ROW.size
    paths = os.fsdecode(body[names:]).split("\0")[:-1]
    return dict(zip(paths, _ROW.iter_unpack(body[4:names]), strict=True))


def _replace(file: Path, data: bytes) -> None:
    """Write a file at once, in a directory that only its owner may read."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.parent.chmod(0o700)
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    caches = sorted(file.parent.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
    for old in caches[_MOST_DIRECTORIES:]:
        old.unlink(missing_ok=True)
