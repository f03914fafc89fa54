"""`python -m bench.delta`: requests that carry only what changed, against buildctl.

Each round has all contenders, in an order that changes. The floor is what BuildKit itself took in
the measured requests: the phases of the builder's log from BuildKit's first event on. What has no
ratio is in `bench.amounts`. The results go to `.run/bench`; `bench.delta_page` makes the tables and
the picture of docs/performance.md of one or several of them.
"""

import argparse
import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.amounts import AMOUNTS
from bench.author import Command
from bench.command import run
from bench.contenders import Buildctl, Contender, Delta, builder
from bench.contexts import Context, Files, many_files, one_large_file, tiny
from bench.delta_page import print_tables
from bench.line import line
from bench.measure import METRICS, OURS, REGISTRY, buildkit_and_registry
from bench.report import machine

_RESULTS = Path(".run/bench")
_ROUNDS = 5
_SETTLED_SECONDS = 2.0
"""The author's command reads a file again that was written so short a time before."""

_FAR, _FAR_BUILDKIT = "127.0.0.1:5011", "127.0.0.1:5012"
_BUILDKIT_PHASES = ("context", "build", "export", "push")

Change = Callable[[Context, int], None]
"""Makes the context ready for the build of that number, which no other build has."""


def _nothing(context: Context, number: int) -> None:
    del context, number


def _touch(context: Context, number: int) -> None:
    del number
    context.touch()


@dataclass(frozen=True, slots=True)
class Case:
    """A line of the table.

    Attributes:
        name: what --case calls it.
        title: what the table calls it.
        files: makes the context; cases in succession that have the same share it.
        change: what differs from one build to the next.
        target: what the measured one, divided by buildctl's, should at most be.
        measured: the contender that the target is for.
        full: rounds that also have a full request; None: all.
        far: whether all clients are behind a line of 20 Mbit/s.
        rounds: the most rounds.
        reproducible: whether they have `SOURCE_DATE_EPOCH`, with which no time is noise.
    """

    name: str
    title: str
    files: Callable[[], Files]
    change: Change
    target: float
    measured: str = "manifest"
    full: int | None = None
    far: bool = False
    rounds: int = 100
    reproducible: bool = True


_10K = partial(many_files, 10_000)
_9K = partial(many_files, 9_000)
_150_MB = partial(one_large_file, 150_000_000)
_command = partial(Case, measured="command", full=0)
CASES = (
    Case("tiny", "tiny, all cached", tiny, _nothing, 0.55, "full", 0),
    Case("10k-unchanged", "10,000 files, unchanged", _10K, _nothing, 0.6),
    Case("10k-changed", "10,000 files, one changed", _10K, Context.edit, 0.95),
    Case(
        "10k-zstd",
        "10,000 files, one changed, zstd",
        _10K,
        Context.edit,
        target=0.8,
        measured="zstd",
        full=0,
        rounds=3,
    ),
    Case(
        "10k-new-mtimes",
        "10,000 files, every mtime new",
        _10K,
        _touch,
        target=0.3,
        rounds=2,
        reproducible=False,
    ),
    Case("200mb-unchanged", "200 MB, unchanged", one_large_file, _nothing, 0.8),
    Case("200mb-changed", "200 MB, another file changed", one_large_file, Context.edit, 0.9),
    _command("command-9k-unchanged", "command: 9,000 files, unchanged", _9K, _nothing, 1.2),
    _command("command-9k-changed", "command: 9,000 files, one changed", _9K, Context.edit, 1.0),
    _command("command-150mb-unchanged", "command: 150 MB, unchanged", _150_MB, _nothing, 3.0),
    _command(
        "command-150mb-changed",
        "command: 150 MB, another file changed",
        _150_MB,
        Context.edit,
        target=2.0,
    ),
    Case(
        "line",
        "command, 20 Mbit/s and 30 ms: 46 MB, one file changed",
        _10K,
        Context.edit,
        target=1.0,
        measured="command",
        full=1,
        far=True,
        rounds=3,
    ),
)


@dataclass(frozen=True, slots=True)
class _Stage:
    """What cases with the same context share.

    Attributes:
        context: the context.
        contenders: by their names.
        log: of the builder.
    """

    context: Context
    contenders: Mapping[str, Contender]
    log: Path


@asynccontextmanager
async def _stage(case: Case, root: Path, buildkit: str) -> AsyncIterator[_Stage]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(builder(root / "ours", buildkit, OURS, METRICS))
        context = await asyncio.to_thread(Context, root / "context", case.files())
        url = f"http://{OURS}"
        if case.far:
            await stack.enter_async_context(line(_FAR, OURS))
            await stack.enter_async_context(line(_FAR_BUILDKIT, buildkit.removeprefix("unix://")))
            buildkit, url = f"tcp://{_FAR_BUILDKIT}", f"http://{_FAR}"
        contenders: dict[str, Contender] = {"buildctl": Buildctl(buildkit, root / "buildctl")}
        if case.measured == "command":
            contenders["command"] = Command("command", url, root / "command")
            contenders["full"] = Command("full", url, root / "full", "--full")
        else:
            contenders["full"] = server
            contenders["manifest"] = Delta(server)
            contenders["zstd"] = Delta(server, compression="zstd")
        await asyncio.sleep(_SETTLED_SECONDS)
        yield _Stage(context, contenders, root / "ours" / "log")


def _measure(case: Case, stage: _Stage, rounds: int) -> Mapping[str, object]:
    """Measure a case; what it gives can be written as JSON."""
    rounds = min(rounds, case.rounds)
    full = rounds if case.full is None else case.full
    names = ["buildctl", case.measured, *(["full"] if full else [])]
    walls: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    floors = []
    # Numbers of their own, so that no content is like another case's.
    numbers = itertools.count(1000 * CASES.index(case) + 1)
    for number in range(-1, rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            if name != case.measured and name == "full" and number >= full:
                continue
            each = next(numbers)
            case.change(stage.context, each)
            contender = stage.contenders[name]
            image = f"{REGISTRY}/bench/{name}:{case.name}-{each}"
            job = contender.job(stage.context, image, reproducible=case.reproducible)
            before, begin = contender.cpu(), time.perf_counter()
            job()
            wall = time.perf_counter() - begin
            if number >= 0:
                walls[name].append(wall)
                cpu[name].append(contender.cpu() - before)
                if name == case.measured:
                    floors.append(_buildkit_seconds(stage.log))
    return {
        "case": case.name,
        "title": case.title,
        "target": case.target,
        "measured": case.measured,
        "load": os.getloadavg()[0],
        "walls": walls,
        "cpu": cpu,
        "floors": floors,
    }


def _buildkit_seconds(log: Path) -> float:
    """What BuildKit took in the last build of a builder."""
    phases = [
        json.loads(each)["phases"] for each in log.read_text().splitlines() if "phases" in each
    ]
    return sum(float(phases[-1].get(name, 0)) for name in _BUILDKIT_PHASES)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="bench.delta", description=__doc__)
    names = [*(case.name for case in CASES), *AMOUNTS]
    parser.add_argument("--case", action="append", choices=names, help="default: every one")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=f"default: {_ROUNDS}")
    options = parser.parse_args()
    _RESULTS.mkdir(parents=True, exist_ok=True)
    run(partial(_measure_all, options.case or names, options.rounds))


async def _measure_all(names: Sequence[str], rounds: int, root: Path) -> None:
    ratios: list[Mapping[str, object]] = []
    amounts: dict[str, object] = {}
    document = {"machine": machine(), "ratios": ratios, "amounts": amounts}
    results = _RESULTS / f"delta-{time.strftime('%Y%m%dT%H%M%S')}.json"
    begin = time.monotonic()

    def keep(name: str) -> None:
        # After each case: a run that is broken off keeps what it has.
        results.write_text(json.dumps(document, indent=1) + "\n")
        print(f"{time.monotonic() - begin:4.0f} s: measured {name}", flush=True)

    async with buildkit_and_registry(root) as daemon:
        cases = [case for case in CASES if case.name in names]
        for _, those in itertools.groupby(cases, lambda each: (each.files, each.far)):
            first, *more = those
            async with _stage(first, root / first.name, daemon.address) as stage:
                for case in (first, *more):
                    ratios.append(await asyncio.to_thread(_measure, case, stage, rounds))
                    keep(case.name)
        for name, amount in AMOUNTS.items():
            if name in names:
                amounts[name] = await amount(root / name, daemon)
                keep(name)
    print(f"written: {results}\n")
    print_tables([document])


if __name__ == "__main__":
    main()
