"""Records synchronous builds in the background, without delaying their requests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from function_builder.contract.builds import BuildInfo
from function_builder.queue.connection import Changed, Full, Unavailable
from function_builder.queue.records import Found
from function_builder.queue.states import Record
from function_builder.store import StoreError

if TYPE_CHECKING:
    from function_builder.queue.builds import JetStreamBuilds

MAX_WAITING: Final = 200
"""The most records that wait to be written. Further builds are left out of the list."""

MAX_WAITING_CHARS: Final = 32 << 20
"""The most characters of their logs, because these are in memory."""

_GIVE_UP_SECONDS: Final = 300.0
"""How long a record waits while the queue cannot be reached."""

_RETRY_SECONDS: Final = 1.0

START_SECONDS: Final = 0.5
"""A build that ends within this time gets one record, because two would cost twice as much."""

_log = structlog.get_logger(__name__)


class _Waiting(NamedTuple):
    """A record that waits to be written.

    Attributes:
        record: the build.
        log: its log, at its end; None: the build has started.
        is_new: whether the build has no record yet, and so no reader of its log.
    """

    record: Record
    log: Sequence[str] | None
    is_new: bool = False


class RecordWriter:
    """Writes the records of synchronous builds, one after the other, in the background."""

    def __init__(self, builds: JetStreamBuilds) -> None:
        self._builds = builds
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_WAITING)
        self._chars = 0
        self._task: asyncio.Task[None] | None = None
        self._starting: dict[str, asyncio.TimerHandle] = {}

    def record_start(self, tenant: str, info: BuildInfo) -> None:
        """Record the start of a build, unless it ends soon."""
        record = Record(info=info, tenant=tenant, owner=self._builds.owner)
        loop = asyncio.get_running_loop()
        self._starting[info.id] = loop.call_later(START_SECONDS, self._started, record)

    def record_end(self, tenant: str, info: BuildInfo, log: Sequence[str]) -> None:
        """Record the end of a build, and its log."""
        if (starting := self._starting.pop(info.id, None)) is not None:
            starting.cancel()
        record = Record(info=info, tenant=tenant, owner=self._builds.owner)
        self._add(_Waiting(record, list(log), is_new=starting is not None))

    async def close(self, seconds: float) -> None:
        """Write the waiting records, for some seconds at most."""
        for starting in self._starting.values():
            starting.cancel()
        if self._task is not None:
            try:
                async with asyncio.timeout(seconds):
                    await self._waiting.join()
            except TimeoutError:
                _log.warning("builds are left out of the list", builds=self._waiting.qsize())
            self._task.cancel()
            await asyncio.wait([self._task])

    def _started(self, record: Record) -> None:
        del self._starting[record.info.id]
        self._add(_Waiting(record, None))

    def _add(self, waiting: _Waiting) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="records of builds")
        chars = _chars(waiting.log)
        if self._chars + chars > MAX_WAITING_CHARS or self._waiting.full():
            _log.warning("a build is left out of the list", build=waiting.record.info.id)
            return
        self._chars += chars
        self._waiting.put_nowait(waiting)

    async def _run(self) -> None:
        while True:
            waiting = await self._waiting.get()
            try:
                await self._until_written(waiting)
            except (Changed, Unavailable, StoreError) as error:
                build_id, reason = waiting.record.info.id, str(error)
                _log.warning("a build is left out of the list", build=build_id, reason=reason)
            finally:
                self._chars -= _chars(waiting.log)
                self._waiting.task_done()

    async def _until_written(self, waiting: _Waiting) -> None:
        end = time.monotonic() + _GIVE_UP_SECONDS
        while True:
            try:
                self._builds.jetstream.require_connected()
                await self._write(waiting)
            except Full:
                raise
            except (Changed, Unavailable):
                if time.monotonic() > end:
                    raise
                # It may be stored, although the acknowledgment was lost.
                waiting = waiting._replace(is_new=False)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _write(self, waiting: _Waiting) -> None:
        record, log, is_new = waiting
        tenant, build_id = record.tenant, record.info.id
        records = self._builds.records
        if log is None:
            with contextlib.suppress(Changed):
                await records.create(record)
            return
        found = None if is_new else await records.get(tenant, build_id)
        # A build ends once, even if another builder has counted this one as lost meanwhile.
        if found is None or not found.record.info.state.ended:
            lines = await self._builds.logs.store_whole(tenant, build_id, 1, log)
            record = dataclasses.replace(record, lines=lines)
            await records.update(Found(record, found.revision if found else 0))
        if not is_new:
            await self._builds.logs.notify_end(build_id)


def _chars(log: Sequence[str] | None) -> int:
    return sum(map(len, log or ()))
