"""A request's body, in memory or in a file without a name."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from function_builder.contract.errors import Refusal

MEMORY_BYTES: Final = 1 << 20
"""A body up to this size stays in memory. A larger one is written in pieces of this size."""


class SpoolSpace:
    """The directory of large bodies, with a limit of their total size.

    Kubernetes cannot limit it: it measures a volume by its named files, and these have no names.

    Args:
        directory: of the files.
        limit: bytes; 0: no limit but the disk.

    Attributes:
        reserved: the bytes of all current bodies on the disk.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory = directory
        self._limit = limit
        self.reserved = 0
        self._lock = threading.Lock()

    def reserve(self, size: int) -> None:
        """Reserve bytes.

        Raises:
            Refusal: 507: the limit is reached.
        """
        with self._lock:
            if self._limit and self.reserved + size > self._limit:
                raise _full()
            self.reserved += size

    def release(self, size: int) -> None:
        """Release reserved bytes."""
        with self._lock:
            self.reserved -= size


def _full() -> Refusal:
    return Refusal(507, "the builder's disk is full: try again later")


class Spool:
    """A request's body. It implements the contract's Reader. Its file never has a name.

    Args:
        space: for a body that is too large for memory.
    """

    def __init__(self, space: SpoolSpace) -> None:
        self._space = space
        self._memory = b""
        self._file: IO[bytes] | None = None
        self._reserved = 0
        self.size = 0

    def append(self, pieces: Sequence[bytes]) -> None:
        """Add bytes at the end; may block on the disk.

        Raises:
            Refusal: 507: the disk is full, or bodies have reached their limit.
        """
        size = sum(map(len, pieces))
        if self._file is None and not self.size and size <= MEMORY_BYTES:
            self._memory = b"".join(pieces)
        else:
            try:
                self._write(pieces)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise _full() from error
                raise
        self.size += size

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from an offset, fewer only at the end."""
        if self._file is None:
            return self._memory[offset : offset + size]
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        """Free the memory and the disk."""
        self._memory = b""
        if self._file is not None:
            self._file.close()
        self._space.release(self._reserved)
        self._reserved = 0

    def _write(self, pieces: Sequence[bytes]) -> None:
        if self._file is None:
            place = self._space.directory
            self._file = tempfile.TemporaryFile(dir=place, buffering=0)  # noqa: SIM115 (closed by `close`)
            pieces, self._memory = [self._memory, *pieces], b""
        size = sum(map(len, pieces))
        self._space.reserve(size)
        self._reserved += size
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(self._file.fileno(), view) :]
