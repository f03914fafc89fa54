"""`python -m bench.resources`: what servers take, where buildctl gives no measure.

Each measure gives rows of a table; this builder's and the Go server's, where both have it.
"""

import argparse
import asyncio
import http.client
import itertools
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

from aiobuildkit import Auth, Client, Exporter, FileSync, LocalDirectory, Secrets
from bench.command import Row, run, show_rows
from bench.contenders import BuildFailed, Server, builder, go_reference
from bench.contexts import Context, many_files, tiny
from bench.measure import GO, METRICS, OURS, REGISTRY, buildkit_and_registry
from bench.report import machine

_STARTS = 11
_WRONG_BODY = 100_000_000
_WRONG_BODIES = 10
_FLOOR_ROUNDS = 30
_WARM_UP = 3
_CLIENTS = 4
_BUILDS = 8
_POLLS = 0.005

Build = Callable[[], Awaitable[None]]


async def start(root: Path, buildkit: str) -> list[Row]:
    """From the process's beginning to the first answer on /healthz, one start after the other."""
    seconds: dict[str, list[float]] = {"ours": [], "go": []}
    for number in range(_STARTS):
        async with builder(root / f"ours{number}", buildkit, OURS, METRICS) as server:
            seconds[server.name].append(server.start)
        async with go_reference(root / f"go{number}", buildkit, GO) as server:
            seconds[server.name].append(server.start)
    return [
        {
            "": name,
            "median s": f"{statistics.median(each):.3f}",
            "min": f"{min(each):.3f}",
            "max": f"{max(each):.3f}",
        }
        for name, each in seconds.items()
    ]


async def wrong_signature(root: Path, buildkit: str) -> list[Row]:
    """A body of 100 MB that nobody signed: what it takes to say no."""
    body = os.urandom(_WRONG_BODY)
    rows: list[Row] = []
    async with _both(root, buildkit) as servers:
        for server in servers:
            cpu, begin = server.cpu(), time.perf_counter()
            for _ in range(_WRONG_BODIES):
                await asyncio.to_thread(_refused, server, body)
            seconds = time.perf_counter() - begin
            rows.append(
                {
                    "": server.name,
                    "CPU s": f"{(server.cpu() - cpu) / _WRONG_BODIES:.3f}",
                    "wall s": f"{seconds / _WRONG_BODIES:.3f}",
                    "idle MB": f"{server.idle():.0f}",
                    "peak MB": f"{server.peak():.0f}",
                }
            )
    return rows


async def latency(root: Path, buildkit: str) -> list[Row]:
    """How long /healthz takes, asked all the time, while four clients build 10,000 files each."""
    contexts = [Context(root / f"context{number}", many_files()) for number in range(_CLIENTS)]
    rows: list[Row] = []
    async with _both(root, buildkit) as servers:
        for server in servers:
            answers = await asyncio.to_thread(_polled_while_building, server, contexts)
            percentiles = statistics.quantiles(answers, n=1000, method="inclusive")
            rows.append(
                {
                    "": server.name,
                    "answers": len(answers),
                    "p50 ms": f"{percentiles[499] * 1e3:.1f}",
                    "p99 ms": f"{percentiles[989] * 1e3:.1f}",
                    "max ms": f"{max(answers) * 1e3:.1f}",
                    "peak MB": f"{server.peak():.0f}",
                }
            )
    return rows


async def floor(root: Path, buildkit: str) -> list[Row]:
    """A tiny cached build over HTTP, and the same Solve by itself, made by this very process.

    The difference is what the service adds: HTTP, signature, archive, digests, log, answer.
    """
    context = Context(root / "context", tiny())
    # As the builder does it: an ignore file beside the Dockerfile saves BuildKit a transfer.
    dockerfile = Context(
        root / "dockerfile",
        {"Dockerfile": tiny()["Dockerfile"], "Dockerfile.dockerignore": b"#\n"},
    )
    requests: list[float] = []
    solves: list[float] = []
    async with (
        builder(root / "ours", buildkit, OURS, METRICS) as server,
        Client(buildkit) as client,
    ):
        for number in range(-_WARM_UP, _FLOOR_ROUNDS):
            tag = f"n{number + _WARM_UP}"
            job = server.job(context, f"{REGISTRY}/bench/floor-request:{tag}")
            image = f"{REGISTRY}/bench/floor-solve:{tag}"
            pair: list[tuple[Build, list[float]]] = [
                (partial(asyncio.to_thread, job), requests),
                (partial(_solve, client, context, dockerfile, image), solves),
            ]
            for build, seconds in pair if number % 2 else reversed(pair):
                took = await _timed(build)
                if number >= 0:
                    seconds.append(took)
    added = [one - other for one, other in zip(requests, solves, strict=True)]
    low, middle, high = statistics.quantiles(added, n=4, method="inclusive")
    return [
        {
            "request ms": f"{statistics.median(requests) * 1e3:.1f}",
            "Solve ms": f"{statistics.median(solves) * 1e3:.1f}",
            "added ms": f"{middle * 1e3:.1f}",
            "quartiles": f"{low * 1e3:.1f} - {high * 1e3:.1f}",
        }
    ]


MEASURES = {
    "start": start,
    "wrong-signature": wrong_signature,
    "latency": latency,
    "floor": floor,
}


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="bench.resources", description=__doc__)
    parser.add_argument("--measure", action="append", choices=MEASURES, help="default: every one")
    options = parser.parse_args()
    run(partial(_measure, options.measure or list(MEASURES)))


async def _measure(names: Sequence[str], root: Path) -> None:
    print(json.dumps(machine(), indent=1), end="\n\n")
    async with buildkit_and_registry(root) as daemon:
        for name in names:
            print(f"{name}\n")
            show_rows(await MEASURES[name](root / name, daemon.address))
    slow = sum("health" in line for line in (root / "buildkitd.log").read_text().splitlines())
    print(f"BuildKit's log has {slow} lines on sessions' health")


@asynccontextmanager
async def _both(root: Path, buildkit: str) -> AsyncIterator[tuple[Server, Server]]:
    """This builder and the Go server."""
    async with (
        builder(root / "ours", buildkit, OURS, METRICS) as ours,
        go_reference(root / "go", buildkit, GO) as go,
    ):
        yield ours, go


def _refused(server: Server, body: bytes) -> None:
    connection = http.client.HTTPConnection(server.address, timeout=60)
    try:
        headers = {"X-Build-Signature": f"sha256={'0' * 64}"}
        connection.request("POST", "/build", body, headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.HTTPStatus.UNAUTHORIZED:
        raise BuildFailed(f"{server.name} answered {status} to a wrong signature")


def _polled_while_building(server: Server, contexts: Sequence[Context]) -> list[float]:
    # In a process of its own: in this one the clients' work would be measured.
    processes = multiprocessing.get_context("spawn")
    ready, stop = processes.Event(), processes.Event()
    answers = processes.SimpleQueue()
    poller = processes.Process(target=_poll, args=(server.address, ready, stop, answers))
    poller.start()
    try:
        ready.wait(60)
        numbers = itertools.count()
        with ThreadPoolExecutor(len(contexts)) as pool:
            list(pool.map(lambda context: _edited_builds(server, context, numbers), contexts))
        stop.set()
        found: list[float] = answers.get()
    finally:
        stop.set()
        poller.join(10)
        poller.kill()
    return found


def _edited_builds(server: Server, context: Context, numbers: "itertools.count[int]") -> None:
    for _ in range(_BUILDS // _CLIENTS):
        number = next(numbers)
        context.edit(number)
        image = f"{REGISTRY}/bench/latency-{server.name}-{context.directory.name}:n{number}"
        server.job(context, image)()


def _poll(
    address: str, ready: Event, stop: Event, answers: "multiprocessing.SimpleQueue[list[float]]"
) -> None:
    seconds: list[float] = []
    connection = http.client.HTTPConnection(address, timeout=60)
    while not stop.is_set():
        begin = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - begin)
        ready.set()
        time.sleep(_POLLS)
    answers.put(seconds)


async def _timed(build: Build) -> float:
    begin = time.perf_counter()
    await build()
    return time.perf_counter() - begin


async def _solve(client: Client, context: Context, dockerfile: Context, image: str) -> None:
    trees = {
        "context": LocalDirectory(context.directory),
        "dockerfile": LocalDirectory(dockerfile.directory),
    }
    push = {"name": image, "push": "true", "registry.insecure": "true"}
    async with client.solve(
        frontend_attrs={"build-arg:SOURCE_DATE_EPOCH": "0"},
        exporters=[Exporter("image", push)],
        attachables=[FileSync(trees), Auth(lambda _: None), Secrets({})],
        shared_key="bench-floor",
        internal=True,
    ) as solve:
        async for _ in solve:
            pass
        await solve.result()


if __name__ == "__main__":
    main()
