"""One BuildKit: its health, its identity, its content records, and its running builds."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from aiobuildkit import BuildKitError, Client, WorkerInfo
from function_builder.buildkits.cache_use import CacheUse, by_kind
from function_builder.context.mtimes import ContentRecords

_log = structlog.get_logger(__name__)

_DISK_PERIOD: Final = 300.0
"""Seconds between two queries of disk usage, for which BuildKit reads all its records."""

_DISK_PATIENCE: Final = 60.0
"""Seconds that such a query may take."""


_PATIENCE: Final = 15.0
"""Seconds that BuildKit may take to answer; under load it may take longer than the period."""


class Daemon:
    """A BuildKit with health checks, which update `reachable`, and queries of its cache.

    A BuildKit that was unreachable may return without some of its files, because its machine may
    have lost unwritten data. The content records are then discarded. This costs each function one
    full transfer, and prevents builds of old content.

    A slow answer does not make it unreachable. It arrives on the connection of its request, so the
    machine was not restarted. Only a connection that fails, is lost, or stays silent for long does.

    Args:
        client: of the BuildKit.
        period: seconds between two health checks.
        patience: seconds that an answer may take.

    Attributes:
        records: the content records of each function's context.
        identity: the ID of its worker, which is stored beside its cache and so moves with it
            (BuildKit's `worker/base/worker.go`). Before its first answer, its address.
        builds: the number of our builds that run on it.
        workers: its workers at the last interruption; empty before its first answer.
        cache: what its cache took at the last query; None before the first.
        asked_at: the time of that query, in seconds since the epoch.
        reason: why the last health check failed; empty if it did not, or before the first.
    """

    def __init__(self, client: Client, *, period: float = 5.0, patience: float = _PATIENCE) -> None:
        self.client = client
        self.records = ContentRecords()
        self.identity = client.address
        self.builds = 0
        self.workers: Sequence[WorkerInfo] = ()
        self.cache: Sequence[CacheUse] | None = None
        self.asked_at = 0.0
        self.reason = ""
        self._period = period
        self._patience = patience
        self._answers = asyncio.Event()
        self._doubted = asyncio.Event()
        self._cache_query = asyncio.Lock()

    @property
    def address(self) -> str:
        """Its address."""
        return self.client.address

    @property
    def reachable(self) -> bool:
        """Whether it answered the last health check, and no build has lost it since."""
        return self._answers.is_set()

    @property
    def disk_bytes(self) -> float:
        """The size of its cache at the last query; NaN before the first."""
        return math.nan if self.cache is None else sum(use.size for use in self.cache)

    def doubt(self) -> None:
        """After a build lost the connection: discard the content records, and check health now.

        Until the check has its answer, it counts as unreachable.
        """
        self.records.forget()
        self._answers.clear()
        self._doubted.set()

    async def watch(self) -> None:
        """Check its health forever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_disk())
            while True:
                self._doubted.clear()
                await self.ask()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._period):
                        await self._doubted.wait()

    async def ask(self) -> None:
        """Check its health once."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                await self._ask()
        except Exception as error:  # noqa: BLE001 (nothing would notice the end of this task)
            reason = str(error) or "no answer"
            if reason != self.reason:
                _log.warning(
                    "BuildKit is out of reach",
                    buildkit=self.address,
                    reason=reason,
                    exc_info=_unexpected(error),
                )
            self.reason = reason
            self.records.forget()
            self._answers.clear()
        else:
            self.reason = ""
            # The answer may be older than the doubt.
            if not self._doubted.is_set():
                if not self.reachable:
                    _log.info("BuildKit answers", buildkit=self.address, worker=self.identity)
                self._answers.set()
            if (took := time.monotonic() - begun) > self._period:
                _log.warning("BuildKit is slow", buildkit=self.address, seconds=round(took, 1))

    async def _ask(self) -> None:
        if self.reachable:
            await self.client.info(answer_timeout=self._patience)
            return
        # After an interruption, another BuildKit may answer at the address. It tests its emulators
        # for this answer, so it is not asked each time.
        self.workers = await self.client.list_workers()
        self.identity = self.workers[0].id if self.workers else self.address

    async def ask_cache(self) -> None:
        """Ask what its cache takes now.

        Raises:
            BuildKitError: it cannot be reached.
        """
        came = time.time()
        async with self._cache_query:
            # Calls that waited together for a running query share the next one.
            if self.asked_at < came:
                begun = time.time()
                self.cache = by_kind(await self.client.disk_usage())
                self.asked_at = begun

    async def _watch_disk(self) -> None:
        while True:
            await self._answers.wait()
            try:
                async with asyncio.timeout(_DISK_PATIENCE):
                    await self.ask_cache()
            except Exception as error:  # noqa: BLE001 (as above)
                # BuildKit still counts as reachable, because its garbage collection may delay it.
                _log.warning(
                    "BuildKit does not report its disk usage",
                    buildkit=self.address,
                    reason=str(error),
                    exc_info=_unexpected(error),
                )
            await asyncio.sleep(_DISK_PERIOD)


def _unexpected(error: Exception) -> Exception | None:
    """The error, if it is a bug of the builder, whose traceback should be logged."""
    return None if isinstance(error, BuildKitError | OSError | TimeoutError) else error
