"""The usage of tenants over all builders, in a key-value bucket, `usage`.

A key is a day and a tenant. Its value has one part for each builder process, and only that process
changes it, by compare-and-set. So a part that is written twice counts once, also if the answer to
the first write was lost. A shared counter would count twice.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import date

from function_builder.contract.usage import KEPT_DAYS, Usage
from function_builder.queue.bucket import Bucket
from function_builder.queue.jetstream import MAX_BATCH, JetStream


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
        self._bucket = Bucket(jetstream, "usage", kept=KEPT_DAYS * 24 * 3600, replicas=replicas)

    async def prepare(self) -> None:
        """Create the bucket if it is not there.

        Raises:
            Unavailable: JetStream did not.
        """
        await self._bucket.prepare()

    async def write(self, day: date, tenant: str, usage: Usage) -> None:
        """Write what this process has counted since its start.

        Raises:
            Unavailable: it may not be written.
        """

        def with_own(stored: bytes) -> bytes:
            parts = json.loads(stored or b"{}")
            return json.dumps(parts | {self._owner: usage.to_document()}).encode()

        await self._bucket.change(f"{day:%Y%m%d}.{tenant}", with_own)

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
        async for subject, data in self._values(f"{self._bucket.subjects}.*.{tenant or '*'}"):
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
        stream = self._bucket.stream
        while batch := await self._jetstream.from_sequence(stream, subjects, sequence, MAX_BATCH):
            for stored in batch:
                yield stored.subject, stored.data
            sequence = batch[-1].sequence + 1
