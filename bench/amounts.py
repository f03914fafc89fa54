"""What `bench.delta` measures that is no ratio, each as rows of a table."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import usage
from bench.author import PROGRAM, Command
from bench.command import Row
from bench.contenders import Contender, Delta, Server, builder
from bench.contexts import Context, many_files, tiny
from bench.measure import METRICS, OURS, REGISTRY
from function_builder.engine import BuildKitDaemon, find_tool

_STARTS = 11
_FILES = 100_000
_MINUTE = 60.0
_BUILDS_A_MINUTE = 1000
_CLIENTS = 64


async def starts(root: Path, daemon: BuildKitDaemon) -> Sequence[Row]:
    """How long commands take that do nothing: the start of the author's command."""
    del root, daemon
    commands = {
        "function-builder --version": [PROGRAM, "--version"],
        "function-builder build --help": [PROGRAM, "build", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
        "buildctl --version": [str(find_tool("buildctl")), "--version"],
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(_STARTS):
        for name, argv in commands.items():
            taken[name].append(await asyncio.to_thread(_start, argv))
    return [
        {
            "command": f"`{name}`",
            "wall s": f"{statistics.median(wall for wall, _ in each):.3f}",
            "least": f"{min(wall for wall, _ in each):.3f}",
            "CPU s": f"{statistics.median(cpu for _, cpu in each):.3f}",
            "target": "≤ 0.12" if name.startswith("function-builder") else "",
        }
        for name, each in taken.items()
    ]


def _start(argv: Sequence[str]) -> tuple[float, float]:
    """Seconds, and seconds of CPU."""
    begin = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, _, spent = os.wait4(process.pid, 0)
    process.returncode = 0
    return time.perf_counter() - begin, spent.ru_utime + spent.ru_stime


async def growth(root: Path, daemon: BuildKitDaemon) -> Sequence[Row]:
    """Processor time and memory for 100,000 files.

    They build the same, so that BuildKit makes a new layer for changes alone. So these are no
    ratios. Each has its turn, because a builder does not remember so many files of three functions.
    """
    rows: list[Row] = []
    context = await asyncio.to_thread(Context, root / "context", many_files(_FILES))
    settings = {"max_body_bytes": str(1 << 32)}
    async with (
        builder(root / "full", daemon.address, OURS, METRICS, **settings) as server,
    ):
        contenders: Mapping[str, Contender] = {
            "full": server,
            "manifest": Delta(server),
            "command": Command("command", f"http://{OURS}", root / "command"),
        }
        for number, (name, contender) in enumerate(contenders.items(), 1):
            for change in ("new", "unchanged", "one changed"):
                if change == "one changed":
                    context.edit(number)
                rows.append(
                    await asyncio.to_thread(_grown, name, contender, server, context, change)
                )
    return rows


def _grown(name: str, contender: Contender, server: Server, context: Context, change: str) -> Row:
    tag = change.replace(" ", "-")
    job = contender.job(context, f"{REGISTRY}/bench/100k-{name}:{tag}")
    server.forget_peak()
    before = server.cpu(), contender.cpu()
    job()
    own = isinstance(contender, Command)
    return {
        "100,000 files": change,
        "request": name,
        "builder's CPU s": f"{server.cpu() - before[0]:.2f}",
        "builder's peak MB": f"{server.peak():.0f}",
        "command's CPU s": f"{contender.cpu() - before[1]:.2f}" if own else "-",
        "command's peak MB": f"{contender.peak():.0f}" if own else "-",
    }


async def minute(root: Path, daemon: BuildKitDaemon) -> Sequence[Row]:
    """1,000 tiny cached builds, begun evenly within a minute."""
    context = Context(root / "context", tiny())
    settings = {"max_inflight": str(_CLIENTS)}
    async with builder(root / "ours", daemon.address, OURS, METRICS, **settings) as server:
        await asyncio.to_thread(server.job(context, f"{REGISTRY}/bench/minute:warm"))
        cpu, buildkit, begin = server.cpu(), usage.session_cpu(daemon.pid), time.perf_counter()
        busy = usage.busy_cpu()
        took = await asyncio.to_thread(_spread, server, context)
        seconds = time.perf_counter() - begin
        cuts = statistics.quantiles(took, n=100, method="inclusive")
        each = 1e3 / len(took)
        busy = usage.busy_cpu() - busy
        return [
            {
                "builds": len(took),
                "p50 ms": f"{cuts[49] * 1e3:.0f}",
                "p99 ms": f"{cuts[98] * 1e3:.0f}",
                "longest ms": f"{max(took) * 1e3:.0f}",
                "all ended after s": f"{seconds:.0f}",
                "CPU ms a build: builder": f"{(server.cpu() - cpu) * each:.1f}",
                "BuildKit": f"{(usage.session_cpu(daemon.pid) - buildkit) * each:.1f}",
                "the whole machine": f"{busy * each:.1f}",
                "processors busy": f"{busy / seconds / (os.cpu_count() or 1):.0%}",
                "peak MB": f"{server.peak():.0f}",
            }
        ]


def _spread(server: Server, context: Context) -> list[float]:
    """The seconds from when each build was due to its end."""
    begin = time.perf_counter()

    def build(number: int) -> float:
        due = begin + number * _MINUTE / _BUILDS_A_MINUTE
        time.sleep(max(due - time.perf_counter(), 0))
        server.job(context, f"{REGISTRY}/bench/minute:n{number}")()
        return time.perf_counter() - due

    with ThreadPoolExecutor(_CLIENTS) as pool:
        return list(pool.map(build, range(_BUILDS_A_MINUTE)))


AMOUNTS: Mapping[str, Callable[[Path, BuildKitDaemon], Coroutine[None, None, Sequence[Row]]]] = {
    "start": starts,
    "minute": minute,
    "100k": growth,
}
