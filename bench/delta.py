"""`python -m bench.delta`: requests that carry only what changed, in one table.

Each round has all contenders, in an order that changes. The floor is what BuildKit itself took in
the requests with a manifest: the phases of the builder's log from BuildKit's first event on.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.command import Row, run, show_rows
from bench.contenders import (
    SECRET,
    Buildctl,
    BuildFailed,
    Contender,
    Delta,
    Job,
    Server,
    builder,
)
from bench.contexts import Context, Files, many_files, one_large_file, tiny
from bench.line import line
from bench.measure import METRICS, OURS, REGISTRY, buildkit_and_registry
from bench.report import machine

_ROUNDS = 7
_WARM_UP = 1
_FAR, _FAR_BUILDKIT = "127.0.0.1:5011", "127.0.0.1:5012"
_MINUTE = 60.0
_BUILDS_A_MINUTE = 1000
_CLIENTS = 64
_BUILDKIT_PHASES = ("context", "build", "export", "push")


@dataclass(frozen=True, slots=True)
class Case:
    """A line of the table.

    Attributes:
        name: what --case calls it.
        title: what the table calls it.
        files: makes the context.
        edited: whether a file changes before each build.
        target: what the measured one, divided by buildctl's, should at most be.
        measured: the contender that the target is for.
        far: whether all clients are behind a line of 20 Mbit/s.
        rounds: the most rounds.
    """

    name: str
    title: str
    files: Callable[[], Files]
    edited: bool
    target: float
    measured: str = "manifest"
    far: bool = False
    rounds: int = 100


_TEN_THOUSAND = partial(many_files, 10_000)
_AUTHORS = partial(many_files, 9_000)
_150_MB = partial(one_large_file, 150_000_000)
CASES = (
    Case("10k-unchanged", "10,000 files, unchanged", _TEN_THOUSAND, False, 0.6),
    Case("10k-one-changed", "10,000 files, one changed", _TEN_THOUSAND, True, 0.95),
    Case("200mb-unchanged", "200 MB, unchanged", one_large_file, False, 0.8),
    Case("200mb-other-changed", "200 MB, another file changed", one_large_file, True, 0.9),
    Case(
        *("command-9k-unchanged", "command, 9,000 files, unchanged", _AUTHORS, False, 1.2),
        "command",
    ),
    Case(
        *("command-9k-changed", "command, 9,000 files, one changed", _AUTHORS, True, 1.0),
        "command",
    ),
    Case("command-150mb-unchanged", "command, 150 MB, unchanged", _150_MB, False, 3.0, "command"),
    Case(
        *("command-150mb-changed", "command, 150 MB, another file changed", _150_MB, True, 2.0),
        "command",
    ),
    Case(
        *("line", "46 MB through 20 Mbit/s and 30 ms, one file changed", _TEN_THOUSAND, True, 1.0),
        *("command", True, 3),
    ),
)


class Command:
    """The author's command, as a whole process.

    Attributes:
        name: what the table calls it.
    """

    def __init__(self, name: str, url: str, root: Path, *options: str) -> None:
        self.name = name
        root.mkdir(parents=True, exist_ok=True)
        secret = root / "payload-secret"
        secret.write_text(SECRET)
        self._command = [
            str(Path(sys.executable).with_name("function-builder")),
            *("build", "--url", url, "--payload-secret", str(secret), "--progress", "plain"),
            *("--build-arg", "SOURCE_DATE_EPOCH=0", *options),
        ]
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(root)}
        self._cpu = 0.0

    def job(self, context: Context, image: str, *, reproducible: bool = True) -> Job:
        """Put the command together."""
        assert reproducible
        return partial(self._run, [*self._command, "--image", image, str(context.directory)])

    def cpu(self) -> float:
        """Of all its runs."""
        return self._cpu

    def idle(self) -> None:
        """It does not wait for builds."""

    def peak(self) -> None:
        """Not measured."""

    def _run(self, argv: list[str]) -> None:
        with subprocess.Popen(
            argv, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            said = process.stdout.read()
            _, status, spent = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise BuildFailed(f"{self.name}: {said[-2000:].decode(errors='replace')}")
        self._cpu += spent.ru_utime + spent.ru_stime


async def compare(case: Case, root: Path, buildkit: str, rounds: int) -> Row:
    """Measure a case with a builder of its own."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(builder(root / "ours", buildkit, OURS, METRICS))
        context = Context(root / "context", case.files())
        if case.far:
            await stack.enter_async_context(line(_FAR, OURS))
            await stack.enter_async_context(line(_FAR_BUILDKIT, buildkit.removeprefix("unix://")))
            buildkit = f"tcp://{_FAR_BUILDKIT}"
        contenders: list[Contender] = [Buildctl(buildkit, root / "buildctl")]
        if case.measured == "command":
            url = f"http://{_FAR if case.far else OURS}"
            contenders.append(Command("command", url, root / "command"))
            if case.far:
                contenders.append(Command("full", url, root / "full", "--full"))
        else:
            contenders += [server, Delta(server)]
        rounds = min(rounds, case.rounds)
        return await asyncio.to_thread(_measured, case, context, contenders, rounds, root)


def _measured(
    case: Case, context: Context, contenders: Sequence[Contender], rounds: int, root: Path
) -> Row:
    numbers = itertools.count(1)
    walls: dict[str, list[float]] = {each.name: [] for each in contenders}
    cpu: dict[str, list[float]] = {each.name: [] for each in contenders}
    floors = []
    # The client reads a file again that has changed within two seconds.
    time.sleep(2)
    for number in range(-_WARM_UP, rounds):
        first = number % len(contenders)
        for contender in (*contenders[first:], *contenders[:first]):
            if case.edited:
                context.edit(next(numbers))
            image = f"{REGISTRY}/bench/{case.name}-{contender.name}:n{next(numbers)}"
            job = contender.job(context, image)
            before, begin = contender.cpu(), time.perf_counter()
            job()
            wall = time.perf_counter() - begin
            if number >= 0:
                walls[contender.name].append(wall)
                cpu[contender.name].append(contender.cpu() - before)
                if contender.name == case.measured:
                    floors.append(_buildkit_seconds(root / "ours" / "log"))
    return _row(case, walls, cpu, floors)


def _buildkit_seconds(log: Path) -> float:
    """What BuildKit took in the last build of a builder."""
    phases = [
        json.loads(each)["phases"] for each in log.read_text().splitlines() if "phases" in each
    ]
    return sum(float(phases[-1].get(name, 0)) for name in _BUILDKIT_PHASES)


def _row(
    case: Case, walls: dict[str, list[float]], cpu: dict[str, list[float]], floors: list[float]
) -> Row:
    def ratios(name: str) -> str:
        if name not in walls:
            return "-"
        each = [a / b for a, b in zip(walls[name], walls["buildctl"], strict=True)]
        low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
        return f"{middle:.2f} ({low:.2f} to {high:.2f})"

    measured = statistics.median(
        a / b for a, b in zip(walls[case.measured], walls["buildctl"], strict=True)
    )
    spent = {name: f"{statistics.fmean(each):.2f} s" for name, each in cpu.items()}
    floor = statistics.median(a / b for a, b in zip(floors, walls["buildctl"], strict=True))
    full = "full" if case.far else "ours"
    return {
        "case": case.title,
        "rounds": len(walls["buildctl"]),
        "load": f"{os.getloadavg()[0]:.0f}",
        "÷ buildctl": ratios(case.measured),
        "target": f"≤ {case.target:.2f}: {'met' if measured <= case.target else '**not met**'}",
        "floor": f"{floor:.2f}",
        "full ÷ buildctl": ratios(full),
        "buildctl": f"{statistics.median(walls['buildctl']):.2f} s",
        "CPU": spent[case.measured],
        "CPU, full": spent.get(full, "-"),
        "CPU, buildctl": spent["buildctl"],
    }


async def growth(root: Path, buildkit: str) -> list[Row]:
    """The builder's processor time and memory for 100,000 files."""
    rows: list[Row] = []
    context = Context(root / "context", many_files(100_000))
    for name in ("ours", "manifest"):
        settings = {"max_body_bytes": str(1 << 32)}
        async with builder(root / name, buildkit, OURS, METRICS, **settings) as server:
            contender: Contender = server if name == "ours" else Delta(server)
            await asyncio.to_thread(contender.job(context, f"{REGISTRY}/bench/100k-{name}:1"))
            for changed in (False, True):
                if changed:
                    context.edit(len(rows))
                job = contender.job(context, f"{REGISTRY}/bench/100k-{name}:{changed}")
                before, begin = server.cpu(), time.perf_counter()
                await asyncio.to_thread(job)
                wall = time.perf_counter() - begin
                rows.append(
                    {
                        "100,000 files": "one changed" if changed else "unchanged",
                        "request": "full" if name == "ours" else name,
                        "wall s": f"{wall:.2f}",
                        "CPU s": f"{server.cpu() - before:.2f}",
                        "peak MB": f"{server.peak():.0f}",
                    }
                )
    return rows


async def minute(root: Path, buildkit: str) -> list[Row]:
    """1,000 tiny cached builds, begun evenly within a minute."""
    context = Context(root / "context", tiny())
    settings = {"max_inflight": str(_CLIENTS)}
    async with builder(root / "ours", buildkit, OURS, METRICS, **settings) as server:
        await asyncio.to_thread(server.job(context, f"{REGISTRY}/bench/minute:warm"))
        before = server.cpu()
        took = await asyncio.to_thread(_spread, server, context)
        cuts = statistics.quantiles(took, n=100, method="inclusive")
        return [
            {
                "builds": len(took),
                "p50 ms": f"{cuts[49] * 1e3:.0f}",
                "p99 ms": f"{cuts[98] * 1e3:.0f}",
                "longest ms": f"{max(took) * 1e3:.0f}",
                "CPU ms a build, builder": f"{(server.cpu() - before) / len(took) * 1e3:.1f}",
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


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="bench.delta", description=__doc__)
    names = [*(case.name for case in CASES), "100k", "minute"]
    parser.add_argument("--case", action="append", choices=names, help="default: every one")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"default: {_ROUNDS}")
    options = parser.parse_args()
    run(partial(_measure, options.case or names, options.rounds))


async def _measure(names: Sequence[str], rounds: int, root: Path) -> None:
    print(json.dumps(machine(), indent=1), end="\n\n")
    async with buildkit_and_registry(root) as daemon:
        rows: list[Row] = []
        try:
            for case in CASES:
                if case.name in names:
                    rows.append(await compare(case, root / case.name, daemon.address, rounds))
                    print(f"measured: {case.title}", flush=True)
        finally:
            # A run that is broken off shows what it has.
            if rows:
                show_rows(rows)
        if "100k" in names:
            show_rows(await growth(root / "100k", daemon.address))
        if "minute" in names:
            show_rows(await minute(root / "minute", daemon.address))


if __name__ == "__main__":
    main()
