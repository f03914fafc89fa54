"""A soak: clients at more than full slots, faults in turn, and what must hold throughout."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from function_builder.engine import BuildKitConfig, BuildKitDaemon, CacheLimits, Registry
from function_builder.engine.base_image import seed_base_image
from tests.adversarial.soak.clients import Clients
from tests.adversarial.soak.faults import Faults, Window
from tests.adversarial.soak.gauges import GAUGES, Gauges, Sample, mean, summary, third
from tests.adversarial.soak.mix import Mix
from tests.support import free_address
from tests.support.builders import RunningBuilder, running_builder
from tests.support.registries import faulty_registry

SLOTS = 4
CLIENTS = 6
CACHE = CacheLimits(reserved="64MB", most="256MB", free="1GB")
CACHE_MEGABYTES = 256.0

_LATEST_END = 180.0

ALLOWED = {"memory": 10.0, "descriptors": 12, "threads": 12, "tasks": 40, "buildkit_disk": 400.0}
"""By how much the last third's mean may lie above the first's, beside a tenth of that: chance
decides what runs when a sample is taken. Descriptors, threads and tasks: those of builds in all
slots (10, 9 and 36 more than at rest), which the first third may not have had for its faults.
BuildKit collects its garbage once a minute."""

AT_REST = {"memory": 64.0, "descriptors": 2, "threads": 16, "tasks": 2}
"""By how much the end's may lie above the beginning's, when nothing is asked. Memory: a builder
that has not worked yet holds none of what it works with. Threads wait for work, up to a number."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a soak gave.

    Attributes:
        tally: how often each kind of request ended how.
        images: pushed images whose content was compared.
        faults: what was broken on purpose.
        samples: in the order of time, while clients worked.
        rest: before the first and after the last of them.
        complaints: what did not hold; empty for a good soak.
    """

    seconds: float
    seed: int
    tally: Counter[tuple[str, str]]
    images: int
    faults: Sequence[Window]
    samples: Sequence[Sample]
    rest: tuple[Sample, Sample]
    complaints: Sequence[str]


async def soak(root: Path, *, seconds: float, seed: int) -> Outcome:
    """Run one for so long, in a directory of its own."""
    listen = free_address()
    blobs = root / "registry"
    with faulty_registry(listen) as faulty:
        config = BuildKitConfig(
            mirrors={"docker.io": [listen]}, plain_http=[listen, faulty.address], cache=CACHE
        )
        async with (
            Registry(blobs, listen=listen, log=root / "registry.log"),
            BuildKitDaemon(root / "bk", config=config, log=root / "buildkitd.log") as daemon,
            running_builder(
                root / "builder",
                daemon.address,
                max_inflight=str(SLOTS),
                max_body_bytes="16MiB",
                build_timeout="60s",
            ) as builder,
        ):
            await seed_base_image(listen)
            faults = Faults(daemon, faulty)
            clients = Clients(builder.url, listen, faults.during)
            faults.hang_up = clients.hang_up
            gauges = Gauges(builder, daemon.address)
            before = await gauges.look()
            await _work(clients, Mix(faulty.address, seed), faults, gauges, seconds)
            after = await _at_rest(gauges, before)
            complaints = [
                *clients.wrong,
                *_flat(gauges.samples),
                *_rested(before, after),
                *_accounts(await asyncio.to_thread(builder.metrics), clients),
                *_remains(builder, root),
            ]
    return Outcome(
        seconds,
        seed,
        clients.tally,
        len(clients.digests),
        faults.windows,
        gauges.samples,
        (before, after),
        complaints,
    )


async def _work(clients: Clients, mix: Mix, faults: Faults, gauges: Gauges, seconds: float) -> None:
    async with asyncio.timeout(seconds + _LATEST_END), asyncio.TaskGroup() as group:
        watching = group.create_task(gauges.watch(period=min(max(seconds / 120, 0.5), 5)))
        async with asyncio.TaskGroup() as working:
            breaking = working.create_task(faults.run(min(max(seconds / 7, 6), 20), seconds))
            working.create_task(clients.run(CLIENTS, mix.asks(lambda: not breaking.done())))
        watching.cancel()


async def _at_rest(gauges: Gauges, before: Sample) -> Sample:
    """Look until what is bounded is back where it began, or half a minute is over."""
    end = time.monotonic() + 30
    while True:
        sample = await gauges.look()
        if not _rested(before, sample) or time.monotonic() > end:
            return sample
        await asyncio.sleep(0.5)


def _flat(samples: Sequence[Sample]) -> list[str]:
    first, last = (summary(third(samples, number), mean) for number in (0, 2))
    return [
        f"{name} grew from {was:.0f} to {now:.0f}"
        for name in GAUGES
        if (now := getattr(last, name)) > (was := getattr(first, name)) * 1.1 + ALLOWED[name]
    ]


def _rested(before: Sample, after: Sample) -> list[str]:
    return [
        f"{name} was {was:.0f} before, and is {now:.0f} at rest"
        for name, more in AT_REST.items()
        if (now := getattr(after, name)) > (was := getattr(before, name)) + more
    ]


def _accounts(text: str, clients: Clients) -> list[str]:
    """What the builder counted must be what the clients sent."""
    counted: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("path", "/build") == "/build":
                counted[sample.name] += int(sample.value) if sample.value == sample.value else 0
    ended = counted["function_builder_builds_total"] + counted["function_builder_refusals_total"]
    return [
        f"{clients.sent} requests were sent, and {number} {what}"
        for what, number in (("answered", counted["http_requests_total"]), ("ended", ended))
        if not clients.sent <= number <= clients.sent + clients.maybe_sent
    ] + [
        f"{counted[name]} {name} at rest"
        for name in (
            "http_requests_in_flight",
            "function_builder_builds_in_progress",
            "function_builder_slots_taken",
            "function_builder_uploads_in_progress",
        )
        if counted[name]
    ]


def _remains(builder: RunningBuilder, root: Path) -> list[str]:
    kept = {builder.log.name, builder.secrets.name}
    return [
        f"the spool holds {path.name}"
        for path in (root / "builder").iterdir()
        if path.name not in kept
    ] + ["the builder's log has a traceback"] * ("Traceback" in builder.log.read_text())
