"""The usage of tenants over all builders, in a key-value bucket, `usage`.

A key is a day and a tenant. Its value has one part for each builder process, which alone changes
its own part, by compare-and-set. So a part that is written twice counts once, also if the answer to
the first write was lost. A counter that is added to would count twice.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from datetime import date
from typing import Final

from nats.js.api import DiscardPolicy, StreamConfig

from function_builder.contract.usage import KEPT_DAYS, Usage
from function_builder.queue.connection import Changed
from function_builder.queue.jetstream import MAX_BATCH, JetStream

STREAM: Final = "KV_usage"
_SUBJECTS: Final = "$KV.usage"


class StoredUsage:
    """The bucket.

    Args:
        jetstream: a connection.
        owner: this process's name among all builders.
        replicas: on how many servers each value is kept.
    """

    def __init__(self, jetstream: JetStream, owner: str, replicas: int) -> None:
        self._jetstream = jetstream
        self._owner = owner
        self._replicas = replicas
        self._prepared = False

    async def prepare(self) -> None:
        """Create the bucket if it is not there.

        Raises:
            Unavailable: JetStream did not.
        """
        if self._prepared:
            return
        await self._jetstream.ensure_stream(
            StreamConfig(
                name=STREAM,
                subjects=[f"{_SUBJECTS}.>"],
                max_age=KEPT_DAYS * 24 * 3600,
                max_msgs_per_subject=1,
                discard=DiscardPolicy.NEW,
                allow_rollup_hdrs=True,
                deny_delete=True,
                num_replicas=self._replicas,
            )
        )
        self._prepared = True

    async def write(self, day: date, tenant: str, usage: Usage) -> None:
        """Write what this process has counted since its start.

        Raises:
            Unavailable: it may not be written.
        """
        subject = f"{_SUBJECTS}.{day:%Y%m%d}.{tenant}"
        while True:
            stored = await self._jetstream.last(STREAM, subject)
            parts = {} if stored is None else json.loads(stored.data)
            parts[self._owner] = usage.to_document()
            last = 0 if stored is None else stored.sequence
            with contextlib.suppress(Changed):
                await self._jetstream.publish(subject, json.dumps(parts).encode(), last=last)
                return

    async def read(self, first: date, last: date, tenant: str) -> Mapping[tuple[date, str], Usage]:
        """The sums over all builders.

        Args:
            first: the first day.
            last: the last day.
            tenant: whose; empty: of all tenants.

        Raises:
            Unavailable: JetStream does not answer.
        """
        found: dict[tuple[date, str], Usage] = {}
        async for subject, data in self._values(f"{_SUBJECTS}.*.{tenant or '*'}"):
            *_, name, owner = subject.split(".")
            day = date.fromisoformat(name)
            if first <= day <= last:
                usage = found[day, owner] = Usage()
                for part in json.loads(data).values():
                    usage.add(Usage.parse(part))
        return found

    async def _values(self, subjects: str) -> AsyncIterator[tuple[str, bytes]]:
        sequence = 1
        # A value that is written meanwhile has a later number, so it is read again and not missed.
        while batch := await self._jetstream.from_sequence(STREAM, subjects, sequence, MAX_BATCH):
            for stored in batch:
                yield stored.subject, stored.data
            sequence = batch[-1].sequence + 1
