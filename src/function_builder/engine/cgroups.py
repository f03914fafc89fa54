"""Control groups: what all RUN steps together may take of the machine, and what BuildKit may.

BuildKit puts each step's container into a group below the one named in `defaultCgroupParent`, and
sets no limits itself. So the limits are set here, on that parent: a step that hogs memory is ended
by the kernel, one that forks without end cannot go on, and neither BuildKit nor the builder, which
are outside of the group, suffers. Steps share it, for BuildKit knows no limit of a single step.

BuildKit has a group of its own: what it takes to read a Dockerfile is a client's choice too.
Without a limit the kernel may end any process of the machine for it.

Sources: the kernel's admin-guide/cgroup-v1 (memory.rst, pids.rst) and admin-guide/cgroup-v2.rst.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_TASKS: Final = 8192
"""A quarter of the process ids that Linux has unless told otherwise; `make -j64` takes hundreds."""


@dataclass(frozen=True, slots=True)
class StepLimits:
    """What RUN steps may take, all of them together.

    Attributes:
        memory: bytes, of which none may be swapped out to take more.
        tasks: processes and threads.
    """

    memory: int
    tasks: int = _TASKS


def four_fifths(root: Path = _ROOT) -> StepLimits:
    """Leave a fifth of the memory that there is, here or in our container, to all else."""
    return StepLimits(_memory(root) * 4 // 5)


def half(root: Path = _ROOT) -> int:
    """Half of the memory that there is, here or in our container: what BuildKit itself may take."""
    return _memory(root) // 2


def _memory(root: Path) -> int:
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        # The root of the machine's own hierarchy has no such file, or says `max`.
        with contextlib.suppress(OSError, ValueError):
            there = min(there, int((root / name).read_text()))
    return there


class ControlGroup:
    """A group, in each hierarchy that there is.

    Args:
        name: of the group, below the root of each.
        root: where cgroups are mounted.
    """

    def __init__(self, name: str, root: Path = _ROOT) -> None:
        self.name = name
        self._root = root

    @property
    def processes(self) -> Path:
        """The file that takes the id of a process which the group's memory limit is to hold."""
        return self._memory_group / "cgroup.procs"

    def make(self, *, memory: int, tasks: int | None = None) -> None:
        """Make the group, or take the one that is left from before.

        Args:
            memory: bytes, of which none may be swapped out to take more.
            tasks: processes and threads.

        Raises:
            OSError: cgroups are not ours to make: there are none, they are read-only, or other
                processes of this container stand in the way (version 2, EBUSY).
        """
        self.remove()
        pids = {} if tasks is None else {"pids.max": tasks}
        if self._unified:
            (self._root / "cgroup.subtree_control").write_text("+memory +pids")
            self._set("", {"memory.max": memory, **pids})
            # Without swap there is no such file.
            with contextlib.suppress(FileNotFoundError):
                self._set("", {"memory.swap.max": 0})
        else:
            self._set("memory", {"memory.limit_in_bytes": memory})
            if pids:
                self._set("pids", pids)
            with contextlib.suppress(FileNotFoundError):
                self._set("memory", {"memory.memsw.limit_in_bytes": memory})

    def memory_kills(self) -> int:
        """How many of its processes the kernel has ended because they exceeded its memory."""
        file = "memory.events" if self._unified else "memory.oom_control"
        with contextlib.suppress(OSError, ValueError):
            for line in (self._memory_group / file).read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        return 0

    def remove(self) -> None:
        """Remove it, and what steps left in it, unless a process is still there."""
        for group in self._everywhere():
            for path, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()

    def _set(self, hierarchy: str, values: Mapping[str, int]) -> None:
        group = self._root / hierarchy / self.name
        # Its parent must be there: on a machine without cgroups nothing is to be made.
        group.mkdir(exist_ok=True)
        for file, value in values.items():
            # Opened as it is: cgroupfs refuses to create files, with another error.
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
