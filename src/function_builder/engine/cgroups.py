"""Control groups: the limits of all RUN steps together, and of BuildKit itself.

BuildKit puts each step's container into a group below `defaultCgroupParent`, and sets no limits
itself. So this module sets the limits on that parent. If a step allocates too much memory, the
kernel kills it, and a step that forks forever gets errors. BuildKit and the builder are outside of
the group, and not affected. All steps share the limits, because BuildKit has no limit for one step.

BuildKit has its own group, because a client also decides how much memory BuildKit needs to read a
Dockerfile. Without a limit, the kernel might kill any process of the machine.

Sources: the kernel's admin-guide/cgroup-v1 (memory.rst, pids.rst) and admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 1 << 60
"""Bytes: version 1 has a number near 2^63 for no limit, version 2 the word `max`."""

_TASKS: Final = 8192
"""A quarter of Linux's default number of process IDs; `make -j64` needs hundreds."""


@dataclass(frozen=True, slots=True)
class StepLimits:
    """The limits of all RUN steps together.

    Attributes:
        memory: bytes, including swap.
        tasks: processes and threads.
    """

    memory: int
    tasks: int = _TASKS


def four_fifths(root: Path = _ROOT) -> StepLimits:
    """Four fifths of the memory of this machine or container."""
    return StepLimits(_memory(root) * 4 // 5)


def half(root: Path = _ROOT) -> int:
    """BuildKit's own limit: half of the memory of this machine or container."""
    return _memory(root) // 2


def _memory(root: Path) -> int:
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        # In the machine's root group, the file does not exist, or contains `max`.
        with contextlib.suppress(OSError, ValueError):
            there = min(there, int((root / name).read_text()))
    return there


def own_memory_limit(root: Path = Path("/")) -> int | None:
    """The least memory limit of this process's group and the groups above it; None without one.

    In a container the group's path may be the host's, so the container's own root counts too.

    Args:
        root: the directory to use as `/`.
    """
    limits = []
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            kind, file = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
            top = root / "sys/fs/cgroup" / kind
            group = top / path.lstrip("/")
            limits += [_limit(each / file) for each in (group, *group.parents, top)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(file: Path) -> int | None:
    """The limit in a file; None if it says that there is none, or does not exist."""
    with contextlib.suppress(OSError, ValueError):
        limit = int(file.read_text())
        return limit if limit < _UNLIMITED else None
    return None


class ControlGroup:
    """A group, in each mounted hierarchy.

    Args:
        name: of the group, below the root of each hierarchy.
        root: the mount point of cgroups.
    """

    def __init__(self, name: str, root: Path = _ROOT) -> None:
        self.name = name
        self._root = root

    @property
    def processes(self) -> Path:
        """The file to which the ID of a process is written to put it under the memory limit."""
        return self._memory_group / "cgroup.procs"

    def make(self, *, memory: int, tasks: int | None = None) -> None:
        """Make the group, or reuse an existing one.

        Args:
            memory: bytes, including swap.
            tasks: processes and threads.

        Raises:
            OSError: cgroups cannot be made: there are none, they are read-only, or other processes
                of this container are in the parent group (version 2, EBUSY).
        """
        self.remove()
        pids = {} if tasks is None else {"pids.max": tasks}
        if self._unified:
            (self._root / "cgroup.subtree_control").write_text("+memory +pids")
            self._set("", {"memory.max": memory, **pids})
            # Without swap, this file does not exist.
            with contextlib.suppress(FileNotFoundError):
                self._set("", {"memory.swap.max": 0})
        else:
            self._set("memory", {"memory.limit_in_bytes": memory})
            if pids:
                self._set("pids", pids)
            with contextlib.suppress(FileNotFoundError):
                self._set("memory", {"memory.memsw.limit_in_bytes": memory})

    def memory_kills(self) -> int:
        """The number of its processes that the kernel killed for the memory limit."""
        file = "memory.events" if self._unified else "memory.oom_control"
        with contextlib.suppress(OSError, ValueError):
            for line in (self._memory_group / file).read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        return 0

    def remove(self) -> None:
        """Remove it with groups of steps in it, unless it still has a process."""
        for group in self._everywhere():
            for path, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()

    def _set(self, hierarchy: str, values: Mapping[str, int]) -> None:
        group = self._root / hierarchy / self.name
        # The parent must exist, because on a machine without cgroups no directory should be made.
        group.mkdir(exist_ok=True)
        for file, value in values.items():
            # Without O_CREAT, because cgroupfs would refuse that with another error.
            with (group / file).open("r+") as opened:
                opened.write(str(value))

    @property
    def _unified(self) -> bool:
        return (self._root / "cgroup.controllers").exists()

    @property
    def _memory_group(self) -> Path:
        return self._root / ("" if self._unified else "memory") / self.name

    def _everywhere(self) -> Iterator[Path]:
        # runc makes the group in every hierarchy of version 1.
        yield self._root / self.name
        yield from self._root.glob(f"*/{self.name}")
