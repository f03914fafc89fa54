"""Where a request's body lies: in memory, or in a file without a name."""

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
"""A body up to this size stays in memory; it is also the piece in which a larger one is written."""


class SpoolSpace:
    """Where large bodies lie, and what they may take there together.

    A platform cannot be asked to bound it: Kubernetes measures a volume by the files that have a
    name, and these have none.

    Args:
        directory: where.
        limit: bytes; 0: as many as the disk has.

    Attributes:
        taken: bytes that bodies take now.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory = directory
        self._limit = limit
        self.taken = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        """Take room for some more bytes.

        Raises:
            Refusal: 507: there is none.
        """
        with self._lock:
            if self._limit and self.taken + size > self._limit:
                raise _full()
            self.taken += size

    def give_back(self, size: int) -> None:
        """Leave the room to others."""
        with self._lock:
            self.taken -= size


def _full() -> Refusal:
    return Refusal(507, "the builder's disk is full: try again later")


class Spool:
    """A body that has arrived; a Reader of the contract. Its file has no name from the first.

    Args:
        space: for a body that is too large for memory.
    """

    def __init__(self, space: SpoolSpace) -> None:
        self._space = space
        self._memory = b""
        self._file: IO[bytes] | None = None
        self._taken = 0
        self.size = 0

    def append(self, pieces: Sequence[bytes]) -> None:
        """Add bytes at the end; may block on the disk.

        Raises:
            Refusal: 507: the disk is full, or as much of it as bodies may take.
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
        """Bytes from an offset; fewer only at the end."""
        if self._file is None:
            return self._memory[offset : offset + size]
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        """Give memory and disk back."""
        self._memory = b""
        if self._file is not None:
            self._file.close()
        self._space.give_back(self._taken)
        self._taken = 0

    def _write(self, pieces: Sequence[bytes]) -> None:
        if self._file is None:
            place = self._space.directory
            self._file = tempfile.TemporaryFile(dir=place, buffering=0)  # noqa: SIM115 (kept)
            pieces, self._memory = [self._memory, *pieces], b""
        size = sum(map(len, pieces))
        self._space.take(size)
        self._taken += size
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(self._file.fileno(), view) :]
