"""What grows with the number of builders and BuildKits, beyond what one machine can run."""

import asyncio
import bisect
import heapq
import itertools
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from aiobuildkit import Client
from bench import usage
from bench.command import Row
from bench.pool.stage import Stage, percent
from bench.tls import buildkitd_over_tls
from function_builder.buildkits.addresses import Addresses
from function_builder.buildkits.daemon import Daemon
from function_builder.buildkits.pool import Chosen, Pool

_NAME = "buildkit"
_WATCHED = 20.0
_SEED = 5


async def watch(stage: Stage) -> list[Row]:
    """What it costs a builder to watch many BuildKits over TLS, and them to be watched by it.

    One BuildKit answers under as many addresses; the builder takes each for a BuildKit by itself.
    """
    certificates = stage.root / "certs"
    await asyncio.to_thread(_certify, certificates)
    client = certificates / "client"
    settings = {
        "buildkit_server_name": _NAME,
        "tlscacert": str(client / "ca.crt"),
        "tlscert": str(client / "client.crt"),
        "tlskey": str(client / "client.key"),
    }
    rows: list[Row] = []
    port = stage.port()
    root = stage.directory("watched")
    # On every address of the machine.
    async with buildkitd_over_tls(root, f"0.0.0.0:{port}", certificates / "server") as session:
        for number in (1, 10, 50, 200):
            hosts = (f"127.0.{each // 250}.{each % 250 + 1}" for each in range(number))
            url = ",".join(f"tcp://{host}:{port}" for host in hosts)
            async with stage.builders([url], **settings) as (front,):
                await stage.until_up([front], number)
                before = front.process.cpu(), usage.session_cpu(session)
                begin = time.perf_counter()
                await asyncio.sleep(_WATCHED)
                wall = time.perf_counter() - begin
                after = front.process.cpu(), usage.session_cpu(session)
                ours, theirs = ((b - a) / wall for a, b in zip(before, after, strict=True))
                rows.append(
                    {
                        "BuildKits": number,
                        "builder's CPUs": f"{ours:.3f}",
                        "builder's most MB": f"{front.process.peak():.0f}",
                        "CPUs of all BuildKits": f"{theirs:.3f}",
                    }
                )
    return rows


def _certify(directory: Path) -> None:
    command = (sys.executable, "-m", "function_builder", "certs", str(directory))
    subprocess.run([*command, f"--host={_NAME}"], check=True, capture_output=True)


@dataclass(frozen=True, slots=True)
class _Provider:
    """Builds as a provider has them.

    Attributes:
        builders: among which a Service shares them out.
        buildkits: that each of these knows.
        rate: builds a second, at random moments.
        hot: the share of builds that are of one function alone.
        seconds: the mean time of a build, which is exponentially distributed.
        functions: how many there are; the n-th most popular is built 1/√n times as often.
    """

    builders: int
    buildkits: int
    rate: float = 10_000 / 60
    hot: float = 0.0
    seconds: float = 10.0
    functions: int = 1_000_000


async def spread(_stage: Stage) -> list[Row]:
    """On which BuildKits a provider's builds lie, as the builders' own code places them.

    Nothing is built: time is a number here.
    """
    return [
        await asyncio.to_thread(_spread, provider)
        for hot in (0.0, 0.05)
        for provider in (
            *(_Provider(builders, 128, hot=hot) for builders in (1, 16, 64)),
            _cell(8, hot=hot),
        )
    ]


def _cell(cells: int, *, hot: float) -> _Provider:
    """One of so many parts of the first row's provider, with the hot function in it."""
    whole = _Provider(builders=2 * cells, buildkits=128, hot=hot)
    others, hottest = whole.rate * (1 - hot) / cells, whole.rate * hot
    return _Provider(
        builders=whole.builders // cells,
        buildkits=whole.buildkits // cells,
        rate=others + hottest,
        hot=hottest / (others + hottest),
        functions=whole.functions // cells,
    )


def _spread(provider: _Provider) -> Row:
    chance = random.Random(_SEED)
    pools = [_pool(provider.buildkits) for _ in range(provider.builders)]
    functions = _functions(provider, chance)
    warm_up, end = 6 * provider.seconds, 18 * provider.seconds
    running: list[tuple[float, int, AbstractContextManager[tuple[Daemon, Chosen]]]] = []
    reasons: Counter[Chosen] = Counter()
    busiest: list[int] = []
    now = 0.0
    for number in itertools.count():
        now += chance.expovariate(provider.rate)
        if now > end:
            break
        while running and running[0][0] <= now:
            heapq.heappop(running)[2].__exit__(None, None, None)
        place = chance.choice(pools).place(next(functions))
        _, reason = place.__enter__()
        heapq.heappush(running, (now + chance.expovariate(1 / provider.seconds), number, place))
        if now > warm_up:
            reasons[reason] += 1
            if number % 100 == 0:
                busiest.append(max(_builds(pools)))
    at_home = reasons[Chosen.HOME]
    return {
        "builders": provider.builders,
        "BuildKits": provider.buildkits,
        "builds/min": f"{provider.rate * 60:.0f}",
        "of one hot function": percent(provider.hot, 1),
        "at home": percent(at_home, sum(reasons.values())),
        "mean on each": f"{provider.rate * provider.seconds / provider.buildkits:.1f}",
        "on the busiest": f"{statistics.fmean(busiest):.0f}",
    }


def _pool(buildkits: int) -> Pool:
    """A pool as a builder has it; nobody asks these BuildKits anything."""
    url = ",".join(f"tcp://buildkit-{number}:1234" for number in range(buildkits))
    return Pool(Addresses.parse(url), lambda endpoint: Client(endpoint.address))


def _functions(provider: _Provider, chance: random.Random) -> Iterator[str]:
    """What is built, one after the other (a power law, and perhaps a hot one)."""
    shares = list(itertools.accumulate(rank**-0.5 for rank in range(1, provider.functions + 1)))
    while True:
        hot = chance.random() < provider.hot
        yield "hot" if hot else str(bisect.bisect(shares, chance.random() * shares[-1]))


def _builds(pools: Sequence[Pool]) -> list[int]:
    """How many builds each BuildKit has, of all builders."""
    everyones = ([daemon.builds for daemon in pool.daemons.values()] for pool in pools)
    return list(map(sum, zip(*everyones, strict=True)))
