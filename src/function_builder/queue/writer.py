"""Synchronous builds are recorded beside their requests, and never delay one."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from function_builder.contract.builds import BuildInfo
from function_builder.queue.jetstream import Changed, Unavailable
from function_builder.queue.records import Found
from function_builder.queue.states import Record
from function_builder.store import StoreError

if TYPE_CHECKING:
    from function_builder.queue.builds import JetStreamBuilds

MAX_WAITING: Final = 200
"""Records that wait to be written. Beyond it, builds are left out of the list."""

_log = structlog.get_logger(__name__)


class RecordWriter:
    """Writes the records of synchronous builds, one after the other, in the background."""

    def __init__(self, builds: JetStreamBuilds) -> None:
        self._builds = builds
        self._waiting: asyncio.Queue[tuple[Record, Sequence[str] | None]] = asyncio.Queue(
            MAX_WAITING
        )
        self._begun: dict[str, Found] = {}
        self._task: asyncio.Task[None] | None = None

    def begin(self, tenant: str, info: BuildInfo) -> None:
        """Record a build that begins."""
        self._add(Record(info=info, tenant=tenant, owner=self._builds.owner), None)

    def finish(self, tenant: str, info: BuildInfo, log: Sequence[str]) -> None:
        """Record a build's end, and its log."""
        self._add(Record(info=info, tenant=tenant, owner=self._builds.owner), list(log))

    async def close(self, seconds: float) -> None:
        """Write what waits, for some seconds at most."""
        if self._task is not None:
            try:
                async with asyncio.timeout(seconds):
                    await self._waiting.join()
            except TimeoutError:
                _log.warning("builds are left out of the list", builds=self._waiting.qsize())
            self._task.cancel()
            await asyncio.wait([self._task])

    def _add(self, record: Record, log: Sequence[str] | None) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="records of builds")
        try:
            self._waiting.put_nowait((record, log))
        except asyncio.QueueFull:
            _log.warning("a build is left out of the list", build=record.info.id)

    async def _run(self) -> None:
        while True:
            record, log = await self._waiting.get()
            try:
                await self._write(record, log)
            except (Unavailable, Changed, StoreError) as error:
                reason = str(error)
                _log.warning("a build is left out of the list", build=record.info.id, reason=reason)
            finally:
                self._waiting.task_done()

    async def _write(self, record: Record, log: Sequence[str] | None) -> None:
        build_id = record.info.id
        if not self._builds.jetstream.connected:
            raise Unavailable("the queue cannot be reached")
        if log is None:
            self._begun[build_id] = await self._builds.records.create(record)
            return
        found = self._begun.pop(build_id, None)
        lines = await self._builds.logs.store_whole(record.tenant, build_id, 1, log)
        record = dataclasses.replace(record, lines=lines)
        revision = found.revision if found else 0
        await self._builds.records.update(Found(record, revision))
        await self._builds.logs.tell_end(build_id)
