"""One BuildKit: whether it is there, who it is, what it holds, and how much runs on it."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from typing import Final

import structlog

from aiobuildkit import BuildKitError, Client
from function_builder.context.mtimes import ContentRecords

_log = structlog.get_logger(__name__)

_DISK_PERIOD: Final = 300.0
"""Seconds between two questions for the disk: BuildKit goes through all its records for one."""

_DISK_PATIENCE: Final = 60.0
"""Seconds that it may take for that."""


_PATIENCE: Final = 15.0
"""Seconds that BuildKit may take to answer: a loaded one takes longer than the period at times."""


class Daemon:
    """A BuildKit, watched: `reachable` is kept true to life, and `disk_bytes` roughly so.

    A BuildKit that was away may come back with less than it had, since its machine may have lost
    what it had not yet written: the content records are forgotten then, which costs each function
    one full transfer and can never build old content.

    A slow answer is no absence. It comes on the connection on which it was asked for, and a
    machine that had restarted meanwhile would have lost that connection. So only a connection that
    cannot be made, or is lost, or stays silent for long, counts.

    Args:
        client: of the BuildKit.
        period: seconds between two questions.
        patience: seconds that an answer may take.

    Attributes:
        records: what it holds of each function's context.
        identity: who it is, wherever it is: the id of its worker, which lies beside its cache and
            so moves with it (BuildKit's `worker/base/worker.go`). Its address before it answered.
        builds: how many of ours run on it.
        disk_bytes: what its cache took when it was last asked; not a number before.
    """

    def __init__(self, client: Client, *, period: float = 5.0, patience: float = _PATIENCE) -> None:
        self.client = client
        self.records = ContentRecords()
        self.identity = client.address
        self.builds = 0
        self.disk_bytes = math.nan
        self._period = period
        self._patience = patience
        self._answers = asyncio.Event()
        self._doubted = asyncio.Event()
        self._reason = ""

    @property
    def address(self) -> str:
        """Where it is."""
        return self.client.address

    @property
    def reachable(self) -> bool:
        """Whether it answered when it was last asked."""
        return self._answers.is_set()

    def doubt(self) -> None:
        """A build lost it: ask at once, and trust nothing that it held before."""
        self.records.forget()
        self._doubted.set()

    async def watch(self) -> None:
        """Ask for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_disk())
            while True:
                self._doubted.clear()
                await self.ask()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._period):
                        await self._doubted.wait()

    async def ask(self) -> None:
        """Ask once."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                await self._ask()
        except Exception as error:  # noqa: BLE001 (an end of the watch would go unseen)
            reason = str(error) or "no answer"
            if reason != self._reason:
                _log.warning(
                    "BuildKit is out of reach",
                    buildkit=self.address,
                    reason=reason,
                    exc_info=_unexpected(error),
                )
            self._reason = reason
            self.records.forget()
            self._answers.clear()
        else:
            if not self.reachable:
                _log.info("BuildKit answers", buildkit=self.address, worker=self.identity)
            self._reason = ""
            self._answers.set()
            if (took := time.monotonic() - begun) > self._period:
                _log.warning("BuildKit is slow", buildkit=self.address, seconds=round(took, 1))

    async def _ask(self) -> None:
        if self.reachable:
            await self.client.info(answer_timeout=self._patience)
            return
        # After an interruption, another BuildKit may answer at the address. It tries out its
        # emulators to answer this, so it is not asked each time.
        workers = await self.client.list_workers()
        self.identity = workers[0].id if workers else self.address

    async def _watch_disk(self) -> None:
        while True:
            await self._answers.wait()
            try:
                async with asyncio.timeout(_DISK_PATIENCE):
                    records = await self.client.disk_usage()
                self.disk_bytes = sum(record.size for record in records)
            except Exception as error:  # noqa: BLE001 (as above)
                # No reason to doubt BuildKit: its garbage collection may hold it up.
                _log.warning(
                    "BuildKit does not say how much disk it uses",
                    buildkit=self.address,
                    reason=str(error),
                    exc_info=_unexpected(error),
                )
            await asyncio.sleep(_DISK_PERIOD)


def _unexpected(error: Exception) -> Exception | None:
    """The error, if it is a fault of ours, whose traceback should be in the log."""
    return None if isinstance(error, BuildKitError | OSError | TimeoutError) else error
