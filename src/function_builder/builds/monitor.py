"""Asks a BuildKit now and then whether it is there."""

from __future__ import annotations

import asyncio

import structlog

from aiobuildkit import BuildKitError, Client
from function_builder.builds.record import ContentRecords

_log = structlog.get_logger(__name__)


class BuildKitMonitor:
    """Keeps `reachable` true to life.

    A BuildKit that was away may come back with less than it had, since its machine may have lost
    what it had not yet written: the content records are forgotten then, which costs each function
    one full transfer and can never build old content.

    Args:
        client: of the BuildKit to watch.
        records: what that BuildKit holds.
        period: seconds between two questions.
    """

    def __init__(self, client: Client, records: ContentRecords, *, period: float = 5.0) -> None:
        self._client = client
        self._records = records
        self._period = period
        self.reachable = False

    async def watch(self) -> None:
        """Ask for ever."""
        while True:
            await self.ask()
            await asyncio.sleep(self._period)

    async def ask(self) -> None:
        """Ask once."""
        try:
            async with asyncio.timeout(self._period):
                await self._client.info()
        except (BuildKitError, OSError, TimeoutError) as error:
            if self.reachable:
                _log.warning("BuildKit is out of reach", reason=str(error))
            self._records.forget()
            self.reachable = False
        else:
            if not self.reachable:
                _log.info("BuildKit answers")
            self.reachable = True
