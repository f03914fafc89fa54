"""Asks a BuildKit now and then whether it is there, and rarely how much disk it uses."""

from __future__ import annotations

import asyncio
import math
from typing import Final

import structlog

from aiobuildkit import BuildKitError, Client
from function_builder.builds.record import ContentRecords

_log = structlog.get_logger(__name__)

_DISK_PERIOD: Final = 300.0
"""Seconds between two questions for the disk: BuildKit goes through all its records for one."""

_DISK_PATIENCE: Final = 60.0
"""Seconds that it may take for that."""


class BuildKitMonitor:
    """Keeps `reachable` true to life, and `disk_bytes` roughly so.

    A BuildKit that was away may come back with less than it had, since its machine may have lost
    what it had not yet written: the content records are forgotten then, which costs each function
    one full transfer and can never build old content.

    Args:
        client: of the BuildKit to watch.
        records: what that BuildKit holds.
        period: seconds between two questions.

    Attributes:
        disk_bytes: what its cache took when it was last asked; not a number before.
    """

    def __init__(self, client: Client, records: ContentRecords, *, period: float = 5.0) -> None:
        self._client = client
        self.records = records
        self._period = period
        self._answers = asyncio.Event()
        self._reason = ""
        self.disk_bytes = math.nan

    @property
    def reachable(self) -> bool:
        """Whether BuildKit answered when it was last asked."""
        return self._answers.is_set()

    async def watch(self) -> None:
        """Ask for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_disk())
            while True:
                await self.ask()
                await asyncio.sleep(self._period)

    async def ask(self) -> None:
        """Ask once."""
        try:
            async with asyncio.timeout(self._period):
                await self._client.info()
        except (BuildKitError, OSError, TimeoutError) as error:
            reason = str(error) or "no answer"
            if reason != self._reason:
                _log.warning("BuildKit is out of reach", reason=reason)
            self._reason = reason
            self.records.forget()
            self._answers.clear()
        else:
            if not self.reachable:
                _log.info("BuildKit answers")
            self._reason = ""
            self._answers.set()

    async def _watch_disk(self) -> None:
        while True:
            await self._answers.wait()
            try:
                async with asyncio.timeout(_DISK_PATIENCE):
                    records = await self._client.disk_usage()
            except (BuildKitError, OSError, TimeoutError) as error:
                # No reason to doubt BuildKit: its garbage collection may hold it up.
                _log.warning("BuildKit does not say how much disk it uses", reason=str(error))
            else:
                self.disk_bytes = sum(record.size for record in records)
            await asyncio.sleep(_DISK_PERIOD)
