"""What a builder and its BuildKit hold while a soak goes on, sampled from outside."""

import asyncio
import contextlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from aiobuildkit import BuildKitError, Client
from tests.support.builders import RunningBuilder


@dataclass(frozen=True, slots=True)
class Sample:
    """One look; sizes in megabytes.

    Attributes:
        memory: of the builder, resident.
        descriptors: its open files and connections.
        threads: the kernel's count.
        tasks: asyncio's.
        buildkit_disk: what BuildKit says that its cache takes.
    """

    memory: float
    descriptors: float
    threads: float
    tasks: float
    buildkit_disk: float


GAUGES = tuple(field.name for field in fields(Sample))


class Gauges:
    """Looks at a builder and its BuildKit in a fixed rhythm."""

    def __init__(self, builder: RunningBuilder, buildkit: str) -> None:
        self._builder = builder
        self._client = Client(buildkit)
        self.samples: list[Sample] = []

    async def watch(self, period: float) -> None:
        """Look until cancelled."""
        while True:
            # BuildKit may be away for the moment, when that is the fault's turn.
            with contextlib.suppress(BuildKitError, OSError, TimeoutError):
                self.samples.append(await self.look())
            await asyncio.sleep(period)

    async def look(self) -> Sample:
        """Look once.

        Raises:
            BuildKitError, OSError, TimeoutError: BuildKit does not answer.
        """
        async with asyncio.timeout(60):
            cache = await self._client.disk_usage()
        process = Path(f"/proc/{self._builder.process.pid}")
        status = (process / "status").read_text()
        return Sample(
            memory=_of(status, "VmRSS:") * 1024 / 1e6,
            descriptors=len(list((process / "fd").iterdir())),
            threads=_of(status, "Threads:"),
            tasks=await asyncio.to_thread(self._builder.metric, "tasks"),
            buildkit_disk=sum(record.size for record in cache) / 1e6,
        )


def _of(text: str, name: str) -> float:
    return float(text.partition(name)[2].split(maxsplit=1)[0])


def third(samples: Sequence[Sample], number: int) -> Sequence[Sample]:
    """The first (0), second or last (2) third."""
    size = len(samples) // 3
    return samples[number * size : (number + 1) * size]


def summary(samples: Sequence[Sample], of: Callable[[list[float]], float]) -> Sample:
    """One number for each gauge."""
    return Sample(*(of([getattr(each, name) for each in samples]) for name in GAUGES))


mean = statistics.fmean
