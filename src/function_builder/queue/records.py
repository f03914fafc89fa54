"""The records of builds in JetStream: written by compare-and-set, listed newest first.

They are a key-value bucket, `builds`, so `nats kv` shows them. A key has two parts: the id's first
six digits, which count periods of 4.7 hours, and the rest. Ids sort by time. So a list asks one
period after the other for its keys, the newest first, and reads the records of one page alone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from nats.js.api import DiscardPolicy, StreamConfig

from function_builder.contract.builds import BuildState, is_id
from function_builder.contract.errors import Refusal
from function_builder.queue.jetstream import JetStream
from function_builder.queue.states import Record

STREAM: Final = "KV_builds"
_SUBJECTS: Final = "$KV.builds"
_PERIOD_DIGITS: Final = 6
_PERIOD_MILLISECONDS: Final = 16**6
_PERIODS_AHEAD: Final = 1
"""A builder's clock may be ahead of ours."""

_READ_AT_ONCE: Final = 100
MAX_EXAMINED: Final = 2000
"""Records that one call reads while it looks for those of a state or a repository."""

_CURSOR: Final = "before-"


class Found(NamedTuple):
    """A record, and its revision.

    Attributes:
        record: the build.
        revision: what a change of it must name.
    """

    record: Record
    revision: int


class Listed(NamedTuple):
    """A page of records, and the cursor of the next; empty at the end."""

    records: Sequence[Found]
    cursor: str


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
        """The stream, as a key-value bucket has it (NATS ADR-8)."""
        return StreamConfig(
            name=STREAM,
            subjects=[f"{_SUBJECTS}.>"],
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
            Changed: there is one.
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
        """The records of several builds, by their ids; an id without one is left out."""
        subjects = [subject(tenant, build_id) for build_id in ids]
        found = [
            Found(Record.parse(stored.data), stored.sequence)
            for stored in await self._jetstream.last_of(STREAM, subjects)
        ]
        return {each.record.info.id: each for each in found}

    async def list(
        self,
        tenant: str,
        *,
        states: Collection[BuildState],
        repository: str,
        limit: int,
        cursor: str,
    ) -> Listed:
        """A page of records, the newest first.

        A page may be shorter than `limit` and still have a cursor, where `MAX_EXAMINED` records
        were read for it.

        Raises:
            Refusal: 400: the cursor is not one.
        """
        before = read_cursor(cursor)
        page: list[Found] = []
        examined = 0
        now = time.time()
        for period in periods(before, now, now - self._history):
            ids = await self._ids(tenant, period)
            ids = sorted((each for each in ids if each < before), reverse=True)
            for start in range(0, len(ids), _READ_AT_ONCE):
                some = ids[start : start + _READ_AT_ONCE]
                found = await self.of(tenant, some)
                for build_id in some:
                    each = found.get(build_id)
                    if each is not None and _fits(each.record, states, repository):
                        if len(page) == limit:
                            return Listed(page, _CURSOR + page[-1].record.info.id)
                        page.append(each)
                examined += len(some)
                if examined >= MAX_EXAMINED:
                    return Listed(page, _CURSOR + some[-1])
        return Listed(page, "")

    async def _ids(self, tenant: str, period: str) -> Sequence[str]:
        keys = await self._jetstream.waiting(STREAM, f"{_SUBJECTS}.{tenant}.{period}.*")
        return [period + key.rpartition(".")[2] for key in keys]


def subject(tenant: str, build_id: str) -> str:
    """The subject of a build's record."""
    return f"{_SUBJECTS}.{tenant}.{build_id[:_PERIOD_DIGITS]}.{build_id[_PERIOD_DIGITS:]}"


def read_cursor(cursor: str) -> str:
    """The id before which a page begins; of the first page, one that follows each id.

    Raises:
        Refusal: 400: it is not a cursor.
    """
    if not cursor:
        return "g"
    before = cursor.removeprefix(_CURSOR)
    if not (cursor.startswith(_CURSOR) and is_id(before)):
        raise Refusal(400, "the cursor is not one of this list: begin without a cursor")
    return before


def periods(before: str, now: float, oldest: float) -> Sequence[str]:
    """The periods that ids before one may lie in, the newest first.

    Args:
        before: an id, or the end of all ids.
        now: seconds since the epoch.
        oldest: when the oldest build was created.
    """
    newest = _period(now) + _PERIODS_AHEAD
    if is_id(before):
        newest = min(newest, int(before[:_PERIOD_DIGITS], 16))
    return [f"{period:06x}" for period in range(newest, _period(oldest) - 1, -1)]


def _period(seconds: float) -> int:
    return max(int(seconds * 1000) // _PERIOD_MILLISECONDS, 0)


def _fits(record: Record, states: Collection[BuildState], repository: str) -> bool:
    info = record.info
    return (not states or info.state in states) and repository in ("", info.repository)
