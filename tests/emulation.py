"""Programs of another machine, run by QEMU through the kernel's binfmt_misc.

Source: Linux, `Documentation/admin-guide/binfmt-misc.rst`; the magic is that of Debian's
`qemu-user-static`.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from function_builder.engine import find_tool

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_NAME = "function-builder-tests-arm64"
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
    """Have the kernel run arm64's programs, and leave it as it was."""
    if runs_arm64():
        yield
        return
    emulator = shutil.which("qemu-aarch64-static")
    if os.geteuid() != 0 or emulator is None:
        pytest.skip("arm64's programs run here only if root sets up QEMU (qemu-user-static)")
    with _mounted():
        # F: the emulator is opened now, so that it is there whatever a container's root is.
        entry = f":{_NAME}:M::{_MAGIC}:{_MASK}:{emulator}:F"
        (_BINFMT / "register").write_text(entry)
        try:
            assert runs_arm64()
            yield
        finally:
            (_BINFMT / _NAME).write_text("-1")


@contextmanager
def _mounted() -> Iterator[None]:
    if (_BINFMT / "register").exists():
        yield
        return
    subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", _BINFMT], check=True)
