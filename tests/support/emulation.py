"""Programs of another machine, run by QEMU through the kernel's binfmt_misc.

Source: Linux, `Documentation/admin-guide/binfmt-misc.rst`; the magic is that of Debian's
`qemu-user-static`.
"""

import fcntl
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from function_builder.engine import find_tool

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_NAME = "function-builder-tests-arm64"
_USERS = Path("/run/lock", f"{_NAME}.users")
_CHANGES = Path("/run/lock", f"{_NAME}.changes")
_MOUNTED = "mounted"
_MAGIC = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"


def runs_arm64() -> bool:
    """Whether this machine runs arm64's programs as they are."""
    try:
        said = subprocess.run([find_tool("probe-arm64")], check=True, capture_output=True)
    except OSError:
        return False
    return said.stdout == b"aarch64\n"


@contextmanager
def emulated_arm64() -> Iterator[None]:
    """Have the kernel run arm64's programs, and leave it as it was.

    The kernel's table is the whole machine's: test runs that need it at the same time share one
    entry, which the first of them makes and the last removes.
    """
    if platform.machine() == "aarch64":
        yield
        return
    emulator = shutil.which("qemu-aarch64-static")
    if os.geteuid() != 0 or emulator is None:
        pytest.skip("arm64's programs run here only if root sets up QEMU (qemu-user-static)")
    with _USERS.open("w") as users:
        with _changing():
            fcntl.flock(users, fcntl.LOCK_SH)
            _register(emulator)
        try:
            assert runs_arm64()
            yield
        finally:
            with _changing() as change:
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    pass  # another run uses it
                else:
                    _unregister(change)


@contextmanager
def _changing() -> Iterator[TextIO]:
    """Keep other test runs from changing the table; gives the file that remembers our mount."""
    with _CHANGES.open("a+") as change:
        fcntl.flock(change, fcntl.LOCK_EX)
        yield change


def _register(emulator: str) -> None:
    if not (_BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT], check=True)
        _CHANGES.write_text(_MOUNTED)
    if not runs_arm64():
        # F: the emulator is opened now, so that it is there whatever a container's root is.
        entry = f":{_NAME}:M::{_MAGIC}:{_MASK}:{emulator}:F"
        (_BINFMT / "register").write_text(entry)


def _unregister(change: TextIO) -> None:
    if (_BINFMT / _NAME).exists():
        (_BINFMT / _NAME).write_text("-1")
    change.seek(0)
    if change.read() == _MOUNTED:
        subprocess.run(["umount", _BINFMT], check=True)
        change.truncate(0)
