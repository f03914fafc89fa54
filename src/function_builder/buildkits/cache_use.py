"""What the build cache of a BuildKit takes, by kind of record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from aiobuildkit import UsageRecord


class CacheUse(NamedTuple):
    """The records of one kind.

    Attributes:
        kind: BuildKit's word (`client/diskusage.go`), such as `regular` or `source.local`.
        records: their number.
        size: bytes.
        reclaimable: the bytes of those that no build uses now.
    """

    kind: str
    records: int
    size: int
    reclaimable: int


def by_kind(records: Iterable[UsageRecord]) -> list[CacheUse]:
    """Sum up records, the largest kind first."""
    kinds: dict[str, list[UsageRecord]] = defaultdict(list)
    for record in records:
        kinds[record.record_type].append(record)
    found = [
        CacheUse(
            kind,
            len(some),
            sum(record.size for record in some),
            sum(record.size for record in some if not record.in_use),
        )
        for kind, some in kinds.items()
    ]
    return sorted(found, key=lambda use: (-use.size, use.kind))
