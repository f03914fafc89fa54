"""The records of builds in JetStream, each written by compare-and-set.

They are in the key-value bucket `builds`, so `nats kv` shows them. A key has two parts: the id's
first six digits, which count periods of 4.7 hours, and the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from nats.js.api import DiscardPolicy, StreamConfig

from function_builder.contract.builds import is_id
from function_builder.queue.jetstream import JetStream
from function_builder.queue.states import Record

STREAM: Final = "KV_builds"
RECORD_SUBJECTS: Final = "$KV.builds"
PERIOD_DIGITS: Final = 6


class Found(NamedTuple):
    """A record, and its revision.

    Attributes:
        record: the build.
        revision: its revision, which an update must name.
    """

    record: Record
    revision: int


class Records:
    """All tenants' records.

    Args:
        jetstream: the connection.
        history: how many seconds a record is kept after its last change.
    """

    def __init__(self, jetstream: JetStream, history: float) -> None:
        self._jetstream = jetstream
        self._history = history

    def config(self, replicas: int) -> StreamConfig:
        """The stream of the key-value bucket (NATS ADR-8)."""
        return StreamConfig(
            name=STREAM,
            subjects=[f"{RECORD_SUBJECTS}.>"],
            max_age=self._history,
            max_msgs_per_subject=1,
            discard=DiscardPolicy.NEW,
            allow_rollup_hdrs=True,
            deny_delete=True,
            num_replicas=replicas,
        )

    async def get(self, tenant: str, build_id: str) -> Found | None:
        """The record of a build; None: there is none."""
        if not is_id(build_id):
            return None
        stored = await self._jetstream.last(STREAM, subject(tenant, build_id))
        return stored and Found(Record.parse(stored.data), stored.sequence)

    async def create(self, record: Record) -> Found:
        """Store a new record.

        Raises:
            Changed: the build has a record.
        """
        return await self.update(Found(record, 0))

    async def update(self, found: Found) -> Found:
        """Store a record in place of a revision.

        Raises:
            Changed: it has another revision.
        """
        name = subject(found.record.tenant, found.record.info.id)
        data = found.record.to_value()
        return Found(found.record, await self._jetstream.publish(name, data, last=found.revision))

    async def of(self, tenant: str, ids: Sequence[str]) -> Mapping[str, Found]:
        """The records of several builds, by their ids; ids without a record are left out."""
        subjects = [subject(tenant, build_id) for build_id in ids]
        found = [
            Found(Record.parse(stored.data), stored.sequence)
            for stored in await self._jetstream.last_of(STREAM, subjects)
        ]
        return {each.record.info.id: each for each in found}


def subject(tenant: str, build_id: str) -> str:
    """The subject of a build's record."""
    return f"{RECORD_SUBJECTS}.{tenant}.{build_id[:PERIOD_DIGITS]}.{build_id[PERIOD_DIGITS:]}"
