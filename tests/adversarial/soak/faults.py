"""What goes wrong in a soak, on purpose, one thing after another."""

import asyncio
import contextlib
import itertools
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiobuildkit import BuildKitError, Client
from function_builder.engine import BuildKitDaemon
from tests.support import children, until
from tests.support.registries import RESET, Fault, FaultyRegistry, answer

_REFUSING_SECONDS = 4.0
_STOP_SECONDS = 3.0
"""As an embedded BuildKit is given between SIGTERM and SIGKILL."""

_LOST = ("BuildKit was lost", "BuildKit cannot be reached")
_PUSH = ("failed to push", "failed to copy", "failed to do request", "unexpected status")


@dataclass(slots=True)
class Window:
    """A time in which something is broken: builds that ran in it may fail with these words."""

    name: str
    words: tuple[str, ...]
    begin: float
    end: float = math.inf


class Faults:
    """Breaks things while clients work.

    Args:
        daemon: the BuildKit that is killed and restarted, and comes back by itself.
        registry: the one that builds push to.

    Attributes:
        windows: what was broken, and when.
        hang_up: makes every client that waits go away.
    """

    def __init__(self, daemon: BuildKitDaemon, registry: FaultyRegistry) -> None:
        self._daemon = daemon
        self._client = Client(daemon.address)
        self._registry = registry
        self.windows: list[Window] = []
        self.hang_up: Callable[[], None] = lambda: None

    def during(self, begin: float) -> list[Window]:
        """What was broken at some moment from `begin` (of the monotonic clock) to now."""
        return [window for window in self.windows if window.end >= begin]

    async def run(self, period: float, seconds: float) -> None:
        """Break one thing in each period, in turn, for so long, each at least once."""
        end = time.monotonic() + seconds
        # The two ends of BuildKit lie 30 s apart in a long run: its supervisor waits longer and
        # longer to restart what keeps dying sooner.
        turns: list[Callable[[], Awaitable[None]]] = [
            self._buildkit_killed,
            lambda: self._registry_fails("registry refuses", answer("503 Service Unavailable")),
            self._clients_leave,
            lambda: self._registry_fails("registry resets", RESET),
            self._buildkit_restarted,
        ]
        for number, turn in enumerate(itertools.cycle(turns)):
            if number >= len(turns) and time.monotonic() + period > end:
                break
            await asyncio.sleep(period)
            await turn()
        await asyncio.sleep(max(end - time.monotonic(), 0))

    async def _buildkit_killed(self) -> None:
        async with self._broken("buildkitd killed", _LOST):
            pid = self._daemon.pid
            os.killpg(pid, signal.SIGKILL)
            await self._until_back(pid)

    async def _buildkit_restarted(self) -> None:
        async with self._broken("buildkitd restarted", _LOST):
            pid = self._daemon.pid
            # The daemon alone, not the steps that it runs: as Kubernetes does.
            for child in children(pid):
                os.kill(child, signal.SIGTERM)
            # It waits for its clients, who may be long.
            with contextlib.suppress(TimeoutError):
                await until(lambda: self._daemon.pid != pid, timeout=_STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            await self._until_back(pid)

    async def _until_back(self, pid: int) -> None:
        await until(lambda: self._daemon.pid != pid)
        async with asyncio.timeout(60):
            while True:
                try:
                    await self._client.info()
                except (BuildKitError, OSError):
                    await asyncio.sleep(0.05)
                else:
                    return

    async def _registry_fails(self, name: str, how: bytes) -> None:
        good: Fault = self._registry.fault
        async with self._broken(name, _PUSH):
            self._registry.fault = lambda _method, _path: how
            await asyncio.sleep(_REFUSING_SECONDS)
            self._registry.fault = good

    async def _clients_leave(self) -> None:
        async with self._broken("clients leave", ()):
            self.hang_up()

    @asynccontextmanager
    async def _broken(self, name: str, words: tuple[str, ...]) -> AsyncIterator[None]:
        window = Window(name, words, time.monotonic())
        self.windows.append(window)
        yield
        window.end = time.monotonic()
