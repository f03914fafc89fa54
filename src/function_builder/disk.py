"""The space of a disk, and the limit below which a builder is not ready."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

_LITTLE: Final = 0.05
"""The free share of a disk below which `/ready` answers 503."""


class Disk(NamedTuple):
    """The space of a file system, in bytes."""

    available: int
    size: int

    @classmethod
    def of(cls, directory: Path) -> Disk:
        """The file system of a directory.

        Raises:
            OSError: it cannot be read.
        """
        found = os.statvfs(directory)
        return cls(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)

    @property
    def nearly_full(self) -> bool:
        """Whether there is too little space for new builds."""
        return self.available < self.size * _LITTLE
