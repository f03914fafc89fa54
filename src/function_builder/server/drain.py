"""Shutdown of a builder: after a signal, running builds may end first."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from typing import Final

import structlog

from function_builder.server.connections import Connections
from function_builder.server.service import Phase, Service

_UNPROVEN_SECONDS: Final = 3.0
"""How long a drain waits for unproven bodies, because a stranger may send them slowly."""

_log = structlog.get_logger(__name__)


class Signals:
    """The first SIGTERM or SIGINT starts the shutdown, the second ends its waits."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals in the block."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._note)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _note(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def drain(service: Service, connections: Connections, hurry: asyncio.Event) -> None:
    """Shut down in the contract's order; `hurry` ends every wait."""
    settings = service.settings
    service.phase = Phase.LEAVING
    connections.announce_close()
    _log.info("leaving: no longer ready", **_counts(service))
    if service.worker is not None:
        # At once, so that another builder starts them while this one waits for its own builds.
        await service.worker.drain()
    await _wait(hurry, settings.drain_delay)
    service.phase = Phase.DRAINING
    # Not earlier, because until then a proxy may send a request on an idle connection.
    connections.close_idle()
    if service.accepted or service.uploads.taken:
        _log.info("draining: builds may end", **_counts(service))
        ended = asyncio.create_task(_all_ended(service))
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait(
            [ended, hurried],
            timeout=settings.drain_timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
        ended.cancel()
        hurried.cancel()
    _log.info("ending: no more builds start", unanswered=len(service.accepted))
    if service.running or service.slots.waiting:
        _log.warning("cancelling builds", **_counts(service))
    service.end("the builder is shutting down: send the request again")


def _counts(service: Service) -> dict[str, int]:
    """The numbers of running and waiting builds."""
    return {"running": len(service.running), "waiting": service.slots.waiting}


async def _all_ended(service: Service) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_UNPROVEN_SECONDS):
            await service.uploads.only_proven()
    service.uploads.end_unproven()
    while service.accepted:
        await asyncio.wait(service.accepted)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
