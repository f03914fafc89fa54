"""The marks of tenants' quotas over all builders, in a key-value bucket, `quotas`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from nats.js.api import DiscardPolicy, StreamConfig

from function_builder.queue.connection import Changed, Unavailable
from function_builder.queue.jetstream import JetStream

STREAM: Final = "KV_quotas"
_SUBJECTS: Final = "$KV.quotas"
_KEPT_SECONDS: Final = 2 * 3600.0
"""A mark lies an hour ahead at most. One that is older means nothing."""


class StoredMarks:
    """The bucket; each change is by compare-and-set.

    Args:
        jetstream: a connection.
        replicas: on how many servers each mark is kept.
    """

    def __init__(self, jetstream: JetStream, replicas: int) -> None:
        self._jetstream = jetstream
        self._replicas = replicas
        self._prepared = False

    async def move(self, tenant: str, change: Callable[[float], float]) -> float:
        """Change a tenant's mark; see `port.Marks`."""
        if not self._jetstream.connected:
            # A request would wait for the connection, and its client with it.
            raise Unavailable("the queue cannot be reached")
        if not self._prepared:
            await self._jetstream.ensure_stream(self._config())
            self._prepared = True
        subject = f"{_SUBJECTS}.{tenant}"
        while True:
            stored = await self._jetstream.last(STREAM, subject)
            mark = change(0.0 if stored is None else float(stored.data))
            last = 0 if stored is None else stored.sequence
            with contextlib.suppress(Changed):
                await self._jetstream.publish(subject, repr(mark).encode(), last=last)
                return mark

    def _config(self) -> StreamConfig:
        return StreamConfig(
            name=STREAM,
            subjects=[f"{_SUBJECTS}.>"],
            max_age=_KEPT_SECONDS,
            max_msgs_per_subject=1,
            discard=DiscardPolicy.NEW,
            allow_rollup_hdrs=True,
            deny_delete=True,
            num_replicas=self._replicas,
        )
