"""A BuildKit, watched: when it is reachable, who it is, and how much disk it says that it takes."""

import asyncio
import math
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from aiobuildkit import ConnectionFailed
from function_builder.buildkits import daemon as module
from function_builder.buildkits.cache_use import CacheUse
from function_builder.buildkits.daemon import Daemon
from function_builder.context.mtimes import ContentRecords
from tests.support import until


class BuildKit:
    """Answers as it is told, at once or when asked to."""

    address = "unix:///absent"

    def __init__(self) -> None:
        self.there = True
        self.worker = "first"
        self.sizes: list[int] | None = [1000, 24]
        self.asked = asyncio.Event()
        self.asked_for_disk = 0
        self.pause = asyncio.Event()
        self.pause.set()

    async def info(self, *, answer_timeout: float | None = None) -> None:
        self.asked.set()
        await self.pause.wait()
        if not self.there:
            raise ConnectionFailed(self.address, "no such file")

    async def list_workers(self) -> list[SimpleNamespace]:
        await self.info()
        return [SimpleNamespace(id=self.worker)]

    async def disk_usage(self) -> list[SimpleNamespace]:
        self.asked_for_disk += 1
        if self.sizes is None:
            raise ConnectionFailed("unix:///absent", "it went away")
        return [
            SimpleNamespace(size=size, record_type="regular", in_use=size > 500)
            for size in self.sizes
        ]


@pytest.fixture
async def buildkit() -> BuildKit:
    return BuildKit()


def watching(buildkit: BuildKit, *, period: float = 0.01, patience: float = 60) -> Daemon:
    return Daemon(buildkit, period=period, patience=patience)  # type: ignore[arg-type]


class Records(ContentRecords):
    """Content records that count how often they were forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten = 0

    def forget(self) -> None:
        super().forget()
        self.forgotten += 1


async def test_it_follows_a_buildkit_that_goes_and_comes(buildkit):
    # Its answers are not slow, even if the machine pauses.
    daemon = watching(buildkit, period=1000)
    seen = [daemon.reachable]
    with capture_logs() as logs:
        for buildkit.there in (True, False, False, True):
            await daemon.ask()
            seen.append(daemon.reachable)
    assert seen == [False, True, False, False, True]
    assert [line["event"] for line in logs] == [
        "BuildKit answers",
        "BuildKit is out of reach",
        "BuildKit answers",
    ]


async def test_the_disk_is_asked_for_once_buildkit_answers_and_then_rarely(buildkit):
    buildkit.there = False
    daemon = watching(buildkit)
    watch = asyncio.create_task(daemon.watch())
    await buildkit.asked.wait()
    assert math.isnan(daemon.disk_bytes)
    buildkit.there = True
    await until(lambda: daemon.disk_bytes == 1024)
    for _ in range(5):
        buildkit.asked.clear()
        await buildkit.asked.wait()
    assert buildkit.asked_for_disk == 1
    watch.cancel()


async def test_a_disk_that_is_not_told_leaves_the_rest_as_it_is(buildkit, monkeypatch):
    monkeypatch.setattr(module, "_DISK_PERIOD", 0.01)
    daemon = watching(buildkit)
    watch = asyncio.create_task(daemon.watch())
    await until(lambda: daemon.disk_bytes == 1024)
    buildkit.sizes = None
    before = buildkit.asked_for_disk
    await until(lambda: buildkit.asked_for_disk > before + 1)
    assert daemon.disk_bytes == 1024
    assert daemon.cache == [CacheUse("regular", records=2, size=1024, reclaimable=24)]
    assert daemon.reachable
    buildkit.sizes = [7]
    await until(lambda: daemon.disk_bytes == 7)
    watch.cancel()


async def test_it_is_the_same_one_until_another_answers_in_its_place(buildkit):
    daemon = watching(buildkit)
    assert daemon.identity == buildkit.address
    await daemon.ask()
    assert daemon.identity == "first"
    buildkit.there = False
    await daemon.ask()
    assert daemon.identity == "first"
    buildkit.there, buildkit.worker = True, "second"
    await daemon.ask()
    assert daemon.identity == "second"


async def test_a_slow_answer_leaves_readiness_and_records(buildkit):
    daemon = watching(buildkit)
    await daemon.ask()
    daemon.records = records = Records()
    buildkit.pause.clear()
    with capture_logs() as logs:
        asking = asyncio.create_task(daemon.ask())
        # Ten periods of the watch.
        await asyncio.wait([asking], timeout=0.1)
        assert daemon.reachable
        buildkit.pause.set()
        await asking
    assert daemon.reachable
    assert records.forgotten == 0
    assert [line["event"] for line in logs] == ["BuildKit is slow"]


async def test_silence_without_end_and_a_lost_connection_count(buildkit):
    daemon = watching(buildkit, patience=0.01)
    await daemon.ask()
    daemon.records = records = Records()
    buildkit.pause.clear()
    await daemon.ask()
    assert (daemon.reachable, records.forgotten) == (False, 1)
    buildkit.pause.set()
    await daemon.ask()
    buildkit.there = False
    await daemon.ask()
    assert (daemon.reachable, records.forgotten) == (False, 2)


async def test_a_doubt_is_settled_at_once(buildkit):
    daemon = watching(buildkit, period=1000)
    watch = asyncio.create_task(daemon.watch())
    await until(lambda: daemon.reachable)
    daemon.doubt()
    assert not daemon.reachable
    await until(lambda: daemon.reachable)
    buildkit.there = False
    daemon.doubt()
    await until(lambda: daemon.reason)
    assert not daemon.reachable
    watch.cancel()


async def test_an_answer_from_before_a_doubt_does_not_settle_it(buildkit):
    daemon = watching(buildkit, period=1000)
    watch = asyncio.create_task(daemon.watch())
    await until(lambda: daemon.reachable)
    buildkit.pause.clear()
    buildkit.asked.clear()
    daemon.doubt()
    await buildkit.asked.wait()
    buildkit.asked.clear()
    daemon.doubt()
    # The first question gets its answer, and the next one has to wait.
    buildkit.pause.set()
    buildkit.pause.clear()
    await buildkit.asked.wait()
    assert not daemon.reachable
    buildkit.pause.set()
    await until(lambda: daemon.reachable)
    watch.cancel()


async def test_a_fault_is_told_and_does_not_end_the_watch(buildkit, monkeypatch):
    monkeypatch.setattr(module, "_DISK_PERIOD", 0.01)
    faults = [UnicodeError("a fault")]

    async def faulty(**_: float) -> None:
        if faults:
            raise faults.pop()

    monkeypatch.setattr(buildkit, "info", faulty)
    buildkit.sizes = [None]
    daemon = watching(buildkit)
    with capture_logs() as logs:
        watch = asyncio.create_task(daemon.watch())
        await until(lambda: buildkit.asked_for_disk > 1)
        buildkit.sizes = [7]
        await until(lambda: daemon.disk_bytes == 7)
        watch.cancel()
    told = [(line["event"], line["reason"]) for line in logs if line.get("exc_info")]
    assert told[0] == ("BuildKit is out of reach", "a fault")
    assert told[1][0] == "BuildKit does not report its disk usage"
