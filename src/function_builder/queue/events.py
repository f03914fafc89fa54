"""The events of builds that their callbacks asked for."""

from __future__ import annotations

from function_builder.queue import callbacks
from function_builder.queue.callback_stream import CallbackStream
from function_builder.queue.jetstream import Unavailable
from function_builder.queue.states import Record
from function_builder.queue.webhooks import EventType, make_webhook


class Events:
    """Stores events in the stream from which they are sent.

    Args:
        stream: keeps them until they are delivered.
    """

    def __init__(self, stream: CallbackStream) -> None:
        self._stream = stream

    async def queued(self, record: Record) -> None:
        """The build is queued."""
        await self._store(EventType.QUEUED, record)

    async def started(self, record: Record) -> None:
        """An attempt has begun."""
        await self._store(EventType.STARTED, record)

    async def finished(self, record: Record) -> None:
        """The build has ended."""
        await self._store(EventType.FINISHED, record)

    async def _store(self, event: EventType, record: Record) -> None:
        """Store an event, if it was asked for.

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
