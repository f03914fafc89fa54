"""What processes take, as the kernel counts it (proc(5))."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def session_cpu(session: int) -> float:
    """Seconds of CPU of all processes of a session, and of what they started and waited for."""
    return sum(
        float(sum(map(int, fields[11:15]))) for fields in _stats() if fields[3] == str(session)
    ) / (_TICKS)


def process_cpu(pid: int) -> float:
    """Seconds of CPU of one process, in steps of the clock's tick (10 ms)."""
    return sum(map(int, _fields(Path(f"/proc/{pid}/stat"))[11:13])) / _TICKS


def busy_cpu() -> float:
    """Seconds of CPU that the whole machine has spent."""
    user, nice, system, _, _, irq, softirq, *_ = Path("/proc/stat").read_text().split()[1:11]
    return sum(map(int, (user, nice, system, irq, softirq))) / _TICKS


def resident(pid: int) -> float:
    """Megabytes that a process holds now."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> float:
    """The most megabytes that it held since it began, or since `forget_peak`."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Let `peak` begin again with what the process holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _stats() -> list[list[str]]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            found.append(_fields(entry))
        except OSError:
            continue
    return found


def _fields(stat: Path) -> list[str]:
    # From the third on: the second, the name, may hold anything.
    return stat.read_text().rpartition(")")[2].split()


def _status(pid: int, key: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024 / 1e6
    raise ValueError(f"/proc/{pid}/status has no {key}")
