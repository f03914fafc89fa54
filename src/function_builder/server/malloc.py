"""Tune the C library's heap for large request bodies."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

# mallopt(3), glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

_KEPT: Final = 8 << 20
"""The free bytes at the end of the heap that are not returned to the kernel."""

_MAPPED: Final = 4 << 20
"""The smallest allocation with its own mapping, which is returned when it is freed."""


def keep_freed_memory() -> None:
    """Let each piece of a body, of 256 KiB, reuse the memory of earlier pieces.

    By default, glibc returns the end of the heap to the kernel for nearly every piece, and then
    faults its pages in again. This took 0.05 s of the 0.30 s of CPU time of a body of 100 MB.
    Other C libraries do not have `mallopt`, so nothing is changed there.
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED)
