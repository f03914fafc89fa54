"""The ids, states and repositories of a tenant's builds, to choose those of a page. No I/O.

An entry takes about 300 bytes. Beyond its limit, the index drops the oldest builds.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Sequence
from sys import intern
from typing import NamedTuple

from function_builder.contract.builds import BuildState


class Entry(NamedTuple):
    """What a list needs to know of a build.

    Attributes:
        sequence: the number of its record in the stream.
        repository: of its image.
        state: the state in its record.
    """

    sequence: int
    repository: str
    state: BuildState


class BuildIndex:
    """The newest builds of a tenant.

    Args:
        limit: how many.

    Attributes:
        horizon: an id; builds with smaller ids may be missing. Empty: none is.
    """

    def __init__(self, limit: int) -> None:
        self.horizon = ""
        self._limit = limit
        self._entries: dict[str, Entry] = {}
        # Sorted. Nearly all new ids are larger than the existing ones.
        self._ids: list[str] = []

    def __len__(self) -> int:
        return len(self._ids)

    def put(self, build_id: str, sequence: int, repository: str, state: BuildState) -> None:
        """Note a build's record, in place of an older one."""
        if build_id < self.horizon:
            return
        if build_id not in self._entries:
            insort(self._ids, build_id)
        # The same few names are in many entries.
        self._entries[build_id] = Entry(sequence, intern(repository), state)
        if len(self._ids) > self._limit:
            del self._entries[self._ids.pop(0)]
            self.horizon = self._ids[0]

    def forget(self, build_ids: Iterable[str]) -> None:
        """Remove builds; one that is absent is ignored."""
        for build_id in build_ids:
            if self._entries.pop(build_id, None) is not None:
                del self._ids[bisect_left(self._ids, build_id)]

    def expire(self, first: int) -> None:
        """Remove the builds whose records are before the first one of the stream."""
        self.forget([name for name, entry in self._entries.items() if entry.sequence < first])

    def select(
        self, before: str, states: Collection[BuildState], repository: str, limit: int
    ) -> Sequence[str]:
        """The ids of builds, the newest first.

        Args:
            before: larger than each of them.
            states: only of these; none: of any.
            repository: only of this; empty: of any.
            limit: at most so many.
        """
        found: list[str] = []
        for at in range(bisect_left(self._ids, before) - 1, -1, -1):
            build_id = self._ids[at]
            entry = self._entries[build_id]
            if (not states or entry.state in states) and repository in ("", entry.repository):
                found.append(build_id)
                if len(found) == limit:
                    break
        return found
