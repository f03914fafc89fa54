"""What a pool of BuildKits promises, measured; every case gives the rows of its table."""

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from bench.command import Row
from bench.contexts import Files
from bench.pool.stage import (
    Built,
    Front,
    Machine,
    Parallelism,
    Stage,
    percent,
    succeeded,
    until,
)

Build = Callable[[], Awaitable[Built]]
"""A build that begins when it is called."""

_RAN = "the step ran"
_AGAIN = "retrying on another one"
_SEED = 5
_STEP = 15.0


def function(name: str) -> Files:
    """A handler that is edited for each build, and dependencies that take a second to install."""
    # BuildKit knows no functions: equal steps of two would share one cache.
    install = f"RUN sleep 1; echo {_RAN} # {name}\n"
    return {
        "Dockerfile": b"FROM busybox\n" + install.encode() + b"COPY handler.sh /\n",
        "handler.sh": b"#!/bin/sh\necho hello\n",
    }


def _waiting(seconds: float, number: int) -> Files:
    """Something whose one step waits, and is never cached."""
    return {"Dockerfile": f"FROM busybox\nRUN sleep {seconds:g} # {number}\n".encode()}


async def run_builds(builds: Sequence[Build], clients: int) -> list[Built]:
    """Run builds in their order, so many at a time."""
    waiting, done = iter(builds), list[Built]()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(_client(waiting, done))
    return done


async def _client(builds: Iterator[Build], done: list[Built]) -> None:
    """Run one after the other of those that wait."""
    while build := next(builds, None):
        done.append(await build())


def _spread(stage: Stage, fronts: Sequence[Front], functions: Sequence[str]) -> list[Build]:
    """Builds of these functions, each sent to the next builder, as a Service would."""
    return [
        partial(stage.build, fronts[number % len(fronts)], name, function(name))
        for number, name in enumerate(functions)
    ]


async def warm(stage: Stage) -> list[Row]:
    """The share of builds that find their dependencies installed: the pool against round-robin.

    Round-robin is a builder before each BuildKit, the requests sent to one after the other: what
    replicas with a BuildKit of their own are behind a Service.
    """
    functions, builds, clients = 20, 10, 4
    rows: list[Row] = []
    for number in (1, 3, 8):
        async with stage.machines(number) as machines:
            await asyncio.gather(*(machine.start() for machine in machines))
            own = [machine.address for machine in machines]
            for way, urls in (("round-robin", own), ("pool", [",".join(own)] * number)):
                names = [f"warm{number}/{way}-{each}" for each in range(functions)] * builds
                random.Random(_SEED).shuffle(names)
                async with stage.builders(urls) as fronts:
                    await stage.until_up(fronts, number if way == "pool" else 1)
                    done = await run_builds(_spread(stage, fronts, names), clients)
                succeeded(done)
                cold = sum(built.says(_RAN) for built in done)
                rows.append(
                    {
                        "BuildKits": number,
                        "routing": way,
                        "builds": len(done),
                        "cold": cold,
                        # The first build of a function is cold wherever it is.
                        "warm after the first": percent(len(done) - cold, len(done) - functions),
                        "mean s": f"{statistics.fmean(built.seconds for built in done):.2f}",
                    }
                )
    return rows


async def moves(stage: Stage) -> list[Row]:
    """Which functions move when a BuildKit goes, comes back, is moved, and when a new one comes."""
    functions, number = [f"moves/f{each}" for each in range(100)], 8
    rows: list[Row] = []
    async with stage.machines(number + 2) as machines:
        *old, new, elsewhere = machines
        await asyncio.gather(*(machine.start() for machine in old))
        url = ",".join(machine.address for machine in machines)
        async with stage.builders([url] * 2) as fronts:

            async def built(event: str, there: Sequence[Machine], of: Machine | None) -> None:
                await stage.until_up(fronts, len(there))
                done = await run_builds(_spread(stage, fronts, functions), 4)
                succeeded(done)
                ran = {each.function for each in done if each.says(_RAN)}
                for machine in there:
                    held[machine.name] = await _held(machine)
                own = held[of.name] & set(functions) if of else set()
                rows.append(
                    {
                        "event": event,
                        "BuildKits": len(there),
                        "functions": len(functions),
                        "of that BuildKit": len(own) if of else "-",
                        "moved": len(ran),
                        "moved from others": len(ran - own) if of else "-",
                    }
                )

            held: dict[str, set[str]] = {}
            gone = old[2]
            await built("first builds", old, None)
            await built("none", old, None)
            await gone.stop()
            rest = [machine for machine in old if machine is not gone]
            await built("a BuildKit is removed", rest, gone)
            await gone.start()
            await built("it returns with its cache", old, None)
            worker = await gone.worker()
            await gone.stop()
            await stage.until_up(fronts, len(rest))
            gone.move_to(elsewhere)
            await elsewhere.start()
            assert await elsewhere.worker() == worker
            await built("it returns with its cache at another address", [*rest, elsewhere], None)
            await new.start()
            await built("a new one is added", [*rest, elsewhere, new], new)
    return rows


async def _held(machine: Machine) -> set[str]:
    """The functions whose installed dependencies are in a BuildKit's cache."""
    # A record is called by its step, which ends with the function's name.
    return {line.rpartition("# ")[2] for line in (await machine.holds()).split("\n")}


async def loss(stage: Stage) -> list[Row]:
    """One of three BuildKits killed while steps run on each: what becomes of the builds."""
    seconds, number = 8.0, 12
    rows: list[Row] = []
    for round_ in range(3):
        async with stage.machines(3) as machines:
            await asyncio.gather(*(machine.start() for machine in machines))
            url = ",".join(machine.address for machine in machines)
            async with stage.builders([url] * 2) as fronts:
                await stage.until_up(fronts, 3)
                running = [
                    asyncio.create_task(
                        stage.build(
                            fronts[each % 2], f"loss{round_}/f{each}", _waiting(seconds, each)
                        )
                    )
                    for each in range(number)
                ]
                await until(lambda: sum(each.steps() for each in machines) == number)
                victim = max(machines, key=lambda machine: machine.steps())
                died = victim.steps()
                victim.kill()
                done = await asyncio.gather(*running)
        again = [built for built in done if built.says(_AGAIN)]
        others = [built for built in done if built not in again]
        rows.append(
            {
                "builds": number,
                "on the killed one": died,
                "retried": len(again),
                "of these succeeded": sum(built.status == "success" for built in again),
                "others succeeded": sum(built.status == "success" for built in others),
                "longest retried s": f"{max(built.seconds for built in again):.1f}",
                "longest other s": f"{max(built.seconds for built in others):.1f}",
            }
        )
    return rows


async def rate(stage: Stage) -> list[Row]:
    """Builds a second as BuildKits are added, each of which runs eight steps at a time.

    Their steps wait and take no CPU, so that the machine's few CPUs are not what is measured. There
    are half as many clients again as steps, since some BuildKits have more builds than others.
    """
    rows: list[Row] = []
    for number in (1, 2, 4, 8):
        async with stage.machines(number, config=Parallelism) as machines:
            await asyncio.gather(*(machine.start() for machine in machines))
            url = ",".join(machine.address for machine in machines)
            most = Parallelism.steps * number
            async with stage.builders([url] * 2) as fronts:
                await stage.until_up(fronts, number)
                done: list[Built] = []
                builds = (
                    partial(
                        stage.build,
                        *(fronts[each % 2], f"rate{number}/f{each}", _waiting(_STEP, each)),
                    )
                    for each in itertools.count()
                )
                async with asyncio.TaskGroup() as group:
                    clients = [
                        group.create_task(_client(builds, done)) for _ in range(most * 3 // 2)
                    ]
                    await asyncio.sleep(_STEP)
                    before, busy, begin = len(done), _busy(), time.perf_counter()
                    await asyncio.sleep(3 * _STEP)
                    built = len(done) - before
                    busy, wall = _busy() - busy, time.perf_counter() - begin
                    for client in clients:
                        client.cancel()
        succeeded(done)
        rows.append(
            {
                "BuildKits": number,
                "clients": len(clients),
                "builds": built,
                "builds/s": f"{built / wall:.2f}",
                "of the maximum": percent(built / wall, most / _STEP),
                "CPUs busy": f"{busy / wall:.2f}",
            }
        )
    return rows


def _busy() -> float:
    """Seconds of CPU that the machine has spent so far (proc(5): user, nice, system)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(map(int, fields[1:4])) / 100
