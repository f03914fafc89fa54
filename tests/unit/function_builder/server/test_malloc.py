"""The heap of a process of its own: this one's would stay as the test left it."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from function_builder.server.malloc import keep_freed_memory

if {kept}:
    keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = faults()
for _ in range(100):
    pieces = [bytes([1]) * (256 << 10) for _ in range(4)]
    del pieces
print(faults() - before)
"""


def faults(*, kept: bool) -> int:
    """Page faults while 100 MiB come and go in pieces."""
    script = FAULTS.format(kept=kept)
    command = [sys.executable, "-c", script]
    return int(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's heap")
def test_pieces_of_a_body_take_the_room_of_those_before_them():
    # A MiB is 256 pages, so that 25,000 come and go.
    assert faults(kept=True) < min(2_000, faults(kept=False) / 2)
