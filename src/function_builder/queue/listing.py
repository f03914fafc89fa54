"""Pages of builds, newest first.

The builder has an index in memory of each tenant whose builds were listed. Before each page it
reads the records that were written since the last page. So a page has every acknowledged build, and
a builder without lists does no work. The records of the page itself are read again.

The first pages of a long list, and builds that the index has dropped, are found by their keys: one
period after the other, the newest first. Both ways read a limited number of records for each page.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from function_builder.contract.builds import BuildState, is_id
from function_builder.contract.errors import Refusal
from function_builder.queue.index import BuildIndex
from function_builder.queue.jetstream import JetStream, Stored
from function_builder.queue.records import (
    PERIOD_DIGITS,
    RECORD_SUBJECTS,
    STREAM,
    Found,
    Records,
)

MAX_INDEXED: Final = 25_000
"""Builds of a tenant in its index."""

MAX_INDEXES: Final = 8
"""Tenants with an index in this builder; the index that was used least recently is dropped."""

_READ_AT_ONCE: Final = 250
MAX_READ: Final = 2000
"""Records that one page reads for the index, which is used when it has read all records."""

MAX_EXAMINED: Final = 500
"""Records that one page reads without the index, to find a state or a repository."""

_EXPIRE_EVERY: Final = 60.0
_PERIOD_MILLISECONDS: Final = 16**6
_PERIODS_AHEAD: Final = 1
"""A builder's clock may be ahead of ours."""

_CURSOR: Final = "before-"


class Wanted(NamedTuple):
    """The filters of a page.

    Attributes:
        states: only of these; none: of any.
        repository: only of this; empty: of any.
        limit: at most so many.
    """

    states: Collection[BuildState]
    repository: str
    limit: int

    def of(self, records: Mapping[str, Found], ids: Sequence[str]) -> Sequence[Found]:
        """The records that pass the filters, in the order of the ids; an id may have no record."""
        return [records[each] for each in ids if each in records and self._has(records[each])]

    def _has(self, found: Found) -> bool:
        info = found.record.info
        fits = not self.states or info.state in self.states
        return fits and self.repository in ("", info.repository)


class Listed(NamedTuple):
    """A page of records, and the cursor of the next; empty at the end."""

    records: Sequence[Found]
    cursor: str


class _Followed:
    """A tenant's index, and the last message of the stream that it has read."""

    def __init__(self) -> None:
        self.index = BuildIndex(MAX_INDEXED)
        self.next = 1
        self.expired = time.monotonic()
        self.reading = asyncio.Lock()


class Listing:
    """The lists of all tenants.

    Args:
        jetstream: the connection.
        records: the records.
        history: how many seconds a record is kept after its last change.
    """

    def __init__(self, jetstream: JetStream, records: Records, history: float) -> None:
        self._jetstream = jetstream
        self._records = records
        self._history = history
        self._followed: OrderedDict[str, _Followed] = OrderedDict()

    async def page(self, tenant: str, wanted: Wanted, cursor: str) -> Listed:
        """A page of records, the newest first.

        A page may be shorter than its limit and still have a cursor, if `MAX_EXAMINED` records were
        read for it.

        Raises:
            Refusal: 400: the cursor is malformed.
            Unavailable: JetStream does not answer.
        """
        before = read_cursor(cursor)
        index = await self._index(tenant)
        if index is None:
            return await self._scan(tenant, wanted, before, [])
        found: list[Found] = []
        while ids := index.select(
            before, wanted.states, wanted.repository, wanted.limit + 1 - len(found)
        ):
            records = await self._records.of(tenant, ids)
            index.forget(set(ids) - records.keys())
            found += wanted.of(records, ids)
            if len(found) > wanted.limit:
                return _cut(found, wanted.limit)
            before = ids[-1]
        if index.horizon:
            return await self._scan(tenant, wanted, min(before, index.horizon), found)
        return Listed(found, "")

    async def _index(self, tenant: str) -> BuildIndex | None:
        """The current index of a tenant; None: it has not read all records yet."""
        followed = self._followed.setdefault(tenant, _Followed())
        self._followed.move_to_end(tenant)
        if len(self._followed) > MAX_INDEXES:
            self._followed.popitem(last=False)
        async with followed.reading:
            for _ in range(0, MAX_READ, _READ_AT_ONCE):
                written = await self._jetstream.from_sequence(
                    STREAM, f"{RECORD_SUBJECTS}.{tenant}.>", followed.next, _READ_AT_ONCE
                )
                if not written:
                    return await self._expire(followed)
                for stored in written:
                    _note(followed.index, stored)
                followed.next = written[-1].sequence + 1
        return None

    async def _expire(self, followed: _Followed) -> BuildIndex:
        now = time.monotonic()
        if now - followed.expired > _EXPIRE_EVERY:
            followed.expired = now
            first, last = await self._jetstream.bounds(STREAM)
            followed.index.expire(first)
            if last < followed.next - 1:
                # It is a new stream, created after the disk was lost.
                followed.index, followed.next = BuildIndex(MAX_INDEXED), 1
        return followed.index

    async def _scan(self, tenant: str, wanted: Wanted, before: str, found: list[Found]) -> Listed:
        """Complete a page by the keys of the records."""
        examined = 0
        now = time.time()
        for period in periods(before, now, now - self._history):
            ids = await self._ids(tenant, period)
            ids = sorted((each for each in ids if each < before), reverse=True)
            for start in range(0, len(ids), _READ_AT_ONCE):
                some = ids[start : start + _READ_AT_ONCE]
                records = await self._records.of(tenant, some)
                found += wanted.of(records, some)
                if len(found) > wanted.limit:
                    return _cut(found, wanted.limit)
                examined += len(some)
                if examined >= MAX_EXAMINED:
                    return Listed(found, _CURSOR + some[-1])
        return Listed(found, "")

    async def _ids(self, tenant: str, period: str) -> Sequence[str]:
        keys = await self._jetstream.waiting(STREAM, f"{RECORD_SUBJECTS}.{tenant}.{period}.*")
        return [period + key.rpartition(".")[2] for key in keys]


def _cut(found: Sequence[Found], limit: int) -> Listed:
    return Listed(found[:limit], _CURSOR + found[limit - 1].record.info.id)


def _note(index: BuildIndex, stored: Stored) -> None:
    # A whole record takes several times as long to read.
    info = json.loads(stored.data)["info"]
    state = BuildState(info["status"])
    index.put(info["buildId"], stored.sequence, info.get("repository", ""), state)


def read_cursor(cursor: str) -> str:
    """The id before which a page starts; for the first page, a text that sorts after each id.

    Raises:
        Refusal: 400: it is malformed.
    """
    if not cursor:
        return "g"
    before = cursor.removeprefix(_CURSOR)
    if not (cursor.startswith(_CURSOR) and is_id(before)):
        raise Refusal(400, "the cursor is not one of this list: begin without a cursor")
    return before


def periods(before: str, now: float, oldest: float) -> Sequence[str]:
    """The periods of the ids before an id, the newest first.

    Args:
        before: an id, or the end of all ids.
        now: seconds since the epoch.
        oldest: when the oldest build was created.
    """
    newest = _period(now) + _PERIODS_AHEAD
    if is_id(before):
        newest = min(newest, int(before[:PERIOD_DIGITS], 16))
    return [f"{period:06x}" for period in range(newest, _period(oldest) - 1, -1)]


def _period(seconds: float) -> int:
    return max(int(seconds * 1000) // _PERIOD_MILLISECONDS, 0)
