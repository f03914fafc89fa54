"""Pages of builds, newest first.

A builder that is asked for a list has an index of the tenant's builds in memory. Before each page
it reads the records that were written since the page before, so a page has every build that was
acknowledged, and costs nothing while no list is asked for. The records of the page itself are read
again.

The first pages of a long list, and builds that the index has forgotten, are found by their keys:
one period after the other, the newest first. Both ways read a bounded number of records a page.
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
"""Tenants that have an index in this builder; the one whose list was asked for last stays."""

_READ_AT_ONCE: Final = 250
MAX_READ: Final = 2000
"""Records that one page reads for the index, which is used once it has read all."""

MAX_EXAMINED: Final = 500
"""Records that one page reads without the index, to find those of a state or a repository."""

_EXPIRE_EVERY: Final = 60.0
_PERIOD_MILLISECONDS: Final = 16**6
_PERIODS_AHEAD: Final = 1
"""A builder's clock may be ahead of ours."""

_CURSOR: Final = "before-"


class Wanted(NamedTuple):
    """Which builds a page is to have.

    Attributes:
        states: only of these; none: of any.
        repository: only of this; empty: of any.
        limit: at most so many.
    """

    states: Collection[BuildState]
    repository: str
    limit: int

    def of(self, records: Mapping[str, Found], ids: Sequence[str]) -> Sequence[Found]:
        """The records of ids, in their order, that are wanted; an id may have none."""
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
    """A tenant's index, and how far it has read the stream."""

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

        A page may be shorter than its limit and still have a cursor, where `MAX_EXAMINED` records
        were read for it.

        Raises:
            Refusal: 400: the cursor is not one.
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
        """The index of a tenant as of now; None: there is more to read first."""
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
                # It is another stream, made after a loss of the disk.
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
        newest = min(newest, int(before[:PERIOD_DIGITS], 16))
    return [f"{period:06x}" for period in range(newest, _period(oldest) - 1, -1)]


def _period(seconds: float) -> int:
    return max(int(seconds * 1000) // _PERIOD_MILLISECONDS, 0)
