"""Fixtures of tests that break things."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

SmallDisk = Callable[[str, str], Path]


@pytest.fixture
def small_disk(engine_root: Path) -> Iterator[SmallDisk]:
    """Makes a directory that is a disk of its own, of a size as mount(8) has it ("3m")."""
    if os.geteuid():
        pytest.skip("root alone makes disks")
    with ExitStack() as stack:

        def mounted(name: str, size: str) -> Path:
            directory = engine_root / name
            directory.mkdir()
            options = ("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory))
            subprocess.run(["mount", *options], check=True)
            stack.callback(lambda: subprocess.run(["umount", "-l", directory], check=True))
            return directory

        yield mounted
