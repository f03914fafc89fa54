"""The events of builds for which callbacks were requested, and the results of the callbacks."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Final

import structlog

from function_builder.contract.builds import CallbackInfo
from function_builder.queue import callbacks
from function_builder.queue.callback_stream import CallbackStream
from function_builder.queue.connection import Changed, Unavailable
from function_builder.queue.records import Records
from function_builder.queue.states import Record
from function_builder.queue.webhooks import EventType, make_webhook

_TRIES: Final = 3

_log = structlog.get_logger(__name__)


class Events:
    """Stores events in the stream of callbacks.

    Args:
        stream: keeps them until they are delivered.
        records: get the results.
    """

    def __init__(self, stream: CallbackStream, records: Records) -> None:
        self._stream = stream
        self._records = records

    async def queued(self, record: Record) -> None:
        """The build is queued."""
        await self._store(EventType.QUEUED, record)

    async def started(self, record: Record) -> None:
        """An attempt has started."""
        await self._store(EventType.STARTED, record)

    async def finished(self, record: Record) -> None:
        """The build has ended."""
        await self._store(EventType.FINISHED, record)

    async def reported(self, tenant: str, build_id: str, callback: CallbackInfo) -> None:
        """Store the state of its callback in a build's record; a failure is ignored."""
        try:
            for _ in range(_TRIES):
                found = await self._records.get(tenant, build_id)
                if found is None:
                    return
                info = dataclasses.replace(found.record.info, callback=callback)
                record = dataclasses.replace(found.record, info=info)
                with contextlib.suppress(Changed):
                    await self._records.update(found._replace(record=record))
                    return
        except Unavailable as error:
            _log.warning("a build does not show its callback", build=build_id, reason=str(error))

    async def _store(self, event: EventType, record: Record) -> None:
        """Store an event if it was requested.

        Raises:
            Unavailable: it may not be stored.
        """
        callback = record.callback
        if callback is None or event.value not in callback.events:
            return
        webhook = make_webhook(event, record.info, url=callback.url, tenant=record.tenant)
        try:
            await self._stream.publish(webhook)
        except callbacks.Unavailable as error:
            raise Unavailable(str(error)) from error
