"""The monitor of a BuildKit: when it is reachable, and how much disk it says that it takes."""

import asyncio
import math
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from aiobuildkit import ConnectionFailed
from function_builder.builds import monitor as module
from function_builder.builds.monitor import BuildKitMonitor
from function_builder.builds.record import ContentRecords
from tests.support import until

pytestmark = pytest.mark.timeout(20)


class Daemon:
    """Answers as it is told, at once or when asked to."""

    def __init__(self) -> None:
        self.there = True
        self.sizes: list[int] | None = [1000, 24]
        self.asked = asyncio.Event()
        self.asked_for_disk = 0

    async def info(self) -> None:
        self.asked.set()
        if not self.there:
            raise ConnectionFailed("unix:///absent", "no such file")

    async def disk_usage(self) -> list[SimpleNamespace]:
        self.asked_for_disk += 1
        if self.sizes is None:
            raise ConnectionFailed("unix:///absent", "it went away")
        return [SimpleNamespace(size=size) for size in self.sizes]


@pytest.fixture
async def daemon() -> Daemon:
    return Daemon()


def watching(daemon: Daemon, *, period: float = 0.01) -> BuildKitMonitor:
    return BuildKitMonitor(daemon, ContentRecords(), period=period)  # type: ignore[arg-type]


async def test_it_follows_a_buildkit_that_goes_and_comes(daemon):
    monitor = watching(daemon)
    seen = [monitor.reachable]
    with capture_logs() as logs:
        for daemon.there in (True, False, False, True):
            await monitor.ask()
            seen.append(monitor.reachable)
    assert seen == [False, True, False, False, True]
    assert [line["event"] for line in logs] == [
        "BuildKit answers",
        "BuildKit is out of reach",
        "BuildKit answers",
    ]


async def test_the_disk_is_asked_for_once_buildkit_answers_and_then_rarely(daemon):
    daemon.there = False
    monitor = watching(daemon)
    watch = asyncio.create_task(monitor.watch())
    await daemon.asked.wait()
    assert math.isnan(monitor.disk_bytes)
    daemon.there = True
    await until(lambda: monitor.disk_bytes == 1024)
    for _ in range(5):
        daemon.asked.clear()
        await daemon.asked.wait()
    assert daemon.asked_for_disk == 1
    watch.cancel()


async def test_a_disk_that_is_not_told_leaves_the_rest_as_it_is(daemon, monkeypatch):
    monkeypatch.setattr(module, "_DISK_PERIOD", 0.01)
    monitor = watching(daemon)
    watch = asyncio.create_task(monitor.watch())
    await until(lambda: monitor.disk_bytes == 1024)
    daemon.sizes = None
    before = daemon.asked_for_disk
    await until(lambda: daemon.asked_for_disk > before + 1)
    assert monitor.disk_bytes == 1024
    assert monitor.reachable
    daemon.sizes = [7]
    await until(lambda: monitor.disk_bytes == 7)
    watch.cancel()
