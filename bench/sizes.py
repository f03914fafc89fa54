"""`python -m bench.sizes`: what a build takes as its files, bytes, clients and log lines grow.

For each size a builder of its own, so that its peak memory is that size's. `bench.curves` draws
what this writes to `.run/bench`.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from bench.command import run
from bench.contenders import Server, builder
from bench.contexts import Context, Files, many_files, one_large_file, tiny
from bench.measure import METRICS, OURS, REGISTRY, buildkit_and_registry
from bench.report import machine

_RESULTS = Path(".run/bench")
_ROUNDS = 5
_FEW_ROUNDS = 2
_LONG = 20.0
"""Seconds from which on a build is measured `_FEW_ROUNDS` times."""


@dataclass(frozen=True, slots=True)
class Growth:
    """One thing that grows.

    Attributes:
        name: what --growth calls it.
        title: what the page calls it, with `{}` for the size.
        sizes: in rising order.
        files: makes the context of a size.
    """

    name: str
    title: str
    sizes: Sequence[int]
    files: Callable[[int], Files]


def _talkative(lines: int) -> Files:
    # The handler comes first: it is edited for each build, so that the step runs in each.
    run = f"FROM busybox\nCOPY handler.sh /\nRUN seq 1 {lines}\n"
    return {"Dockerfile": run.encode(), "handler.sh": b"#!/bin/sh\necho hello\n"}


GROWTHS = (
    Growth("files", "{} files, one changed", (10, 100, 1_000, 10_000, 100_000), many_files),
    Growth(
        "bytes",
        "one file of {} bytes beside the one that changed",
        (1_000, 100_000, 10_000_000, 200_000_000, 2_000_000_000),
        one_large_file,
    ),
    Growth("lines", "a step that prints {} lines", (10, 1_000, 10_000, 100_000), _talkative),
    Growth("clients", "{} at once, tiny and cached", (1, 4, 16, 64), lambda _: tiny()),
)


@dataclass(frozen=True, slots=True)
class Point:
    """What one size took.

    Attributes:
        wall: seconds, the median of builds; where several run at once, for each of them.
        cpu: the builder's seconds for each build, without BuildKit's.
        peak: the most megabytes that the builder held.
    """

    size: int
    wall: float
    cpu: float
    peak: float


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="bench.sizes", description=__doc__)
    names = [growth.name for growth in GROWTHS]
    parser.add_argument("--growth", action="append", choices=names, help="default: every one")
    options = parser.parse_args()
    growths = [each for each in GROWTHS if not options.growth or each.name in options.growth]
    _RESULTS.mkdir(parents=True, exist_ok=True)
    run(partial(_measure, growths))


async def _measure(growths: Sequence[Growth], root: Path) -> None:
    measured: dict[str, list[dict[str, float]]] = {}
    document = {"machine": machine(), "growths": measured}
    results = _RESULTS / f"sizes-{time.strftime('%Y%m%dT%H%M%S')}.json"
    async with buildkit_and_registry(root) as daemon:
        print("| build | wall s | CPU s | peak MB |\n|---|---|---|---|")
        for growth in growths:
            for size in growth.sizes:
                directory = root / f"{growth.name}{size}"
                point = await _point(growth, size, directory, daemon.address)
                shutil.rmtree(directory)
                title = growth.title.format(f"{size:,}")
                print(
                    f"| {title} | {point.wall:.2f} | {point.cpu:.3f} | {point.peak:.0f} |",
                    flush=True,
                )
                # After each point: a run that is broken off keeps what it has.
                measured.setdefault(growth.name, []).append(asdict(point))
                results.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written: {results}")


async def _point(growth: Growth, size: int, root: Path, buildkit: str) -> Point:
    """Builds, each with its handler edited; the first round, which is cold, is left out.

    Many at once build what is in the cache, so that they are more work for the builder, and not for
    BuildKit alone.
    """
    clients = size if growth.name == "clients" else 1
    context = Context(root / "context", growth.files(size))
    walls: list[float] = []
    settings = {"max_body_bytes": str(1 << 32), "max_inflight": str(clients)}
    async with builder(root / "ours", buildkit, OURS, METRICS, **settings) as server:
        repository = f"bench/{root.name}"
        await asyncio.to_thread(_round, server, context, repository, clients)
        cpu = server.cpu()
        while len(walls) < (_FEW_ROUNDS if sum(walls) > _LONG else _ROUNDS):
            if growth.name != "clients":
                context.edit(len(walls))
            walls.append(await asyncio.to_thread(_round, server, context, repository, clients))
        spent = (server.cpu() - cpu) / len(walls) / clients
        return Point(size, statistics.median(walls), spent, server.peak())


def _round(server: Server, context: Context, repository: str, clients: int) -> float:
    """Seconds for each build."""
    jobs = [
        server.job(context, f"{REGISTRY}/{repository}-{number}:latest") for number in range(clients)
    ]
    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda job: job(), jobs))
    return (time.perf_counter() - begin) / clients


if __name__ == "__main__":
    main()
