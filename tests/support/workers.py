"""How the tests are divided among processes of pytest-xdist, and what each of these has of its own.

Many tests wait: for a timeout, for BuildKit, for a program's start. Several processes wait at the
same time. Each has a BuildKit and a registry of its own, because those are session fixtures, and
as root a network of its own, so that its registry is at 127.0.0.1:5000 too.
"""

import contextlib
import ctypes
import importlib
import os
import subprocess
from collections.abc import Iterable

import pytest

from function_builder.engine import find_tool

WORKERS_PER_CPU = 2
"""Tests wait for about half of their time."""

CLONE_NEWNET = 0x40000000
"""Source: unshare(2); Python has `os.unshare` only since 3.12."""


def is_selection(config: pytest.Config) -> bool:
    """Whether the command line names tests, instead of running all."""
    selects = ("keyword", "markexpr", "lf", "collectonly")
    return config.args_source is not config.ArgsSource.TESTPATHS or any(
        config.getoption(option, False) for option in selects
    )


def number_of_workers(config: pytest.Config) -> int:
    """How many processes run the tests; 0 runs them in pytest's own.

    Part of the tests runs in one process: several would start as many BuildKits for it.
    """
    # An ordinary user's workers would all want port 5000 of one network.
    if is_selection(config) or os.geteuid() != 0:
        return 0
    return WORKERS_PER_CPU * len(os.sched_getaffinity(0))


def enter_own_network() -> None:
    """Move this process into a new network namespace that has a loopback interface alone.

    Raises:
        OSError: this process may not.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    subprocess.run([find_tool("busybox"), "ip", "link", "set", "lo", "up"], check=True)


def import_share(config: pytest.Config) -> None:
    """Import this process's share of the test files before it collects all of them.

    pytest rewrites the asserts of each file that it imports, and stores the result beside the file.
    Without shares, in a fresh clone, every process would rewrite every file.
    """
    worker = config.workerinput  # type: ignore[attr-defined]  # xdist sets it
    number, count = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    files = [file for arg in config.args for file in (config.rootpath / arg).rglob("test_*.py")]
    for file in sorted(files)[number::count]:
        name = ".".join(file.relative_to(config.rootpath).with_suffix("").parts)
        # The collection imports the file again, and reports the error.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(name)


def longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """The files whose tests may take longest come first, so that none is left over at the end.

    The order is otherwise kept, and is random (pytest-randomly).
    """

    def bound(item: pytest.Item) -> tuple[float, bool]:
        return max(_timeouts(item), default=0), item.get_closest_marker("integration") is not None

    bounds: dict[object, tuple[float, bool]] = {}
    for item in items:
        bounds[item.path] = max(bounds.get(item.path, (0.0, False)), bound(item))
    return sorted(items, key=lambda item: bounds[item.path], reverse=True)


def _timeouts(item: pytest.Item) -> Iterable[float]:
    return (float(mark.args[0]) for mark in item.iter_markers("timeout"))
