"""Deletes old bodies and logs from the store.

Each builder does this regularly. Concurrent sweeps have the same effect as one, because an object
that is already deleted is ignored.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import structlog

from function_builder.contract.builds import is_id
from function_builder.queue.builds import JetStreamBuilds
from function_builder.queue.connection import Unavailable
from function_builder.queue.records import Found
from function_builder.store import StoredObject, StoreError

SWEEP_SECONDS: Final = 600.0

_UNACKNOWLEDGED_SECONDS: Final = 3600.0
"""A body that has no record after this time belongs to an interrupted request."""

_log = structlog.get_logger(__name__)


class Retention:
    """Deletes bodies and logs by their age, and the oldest if all of them are too large.

    Args:
        builds: the queue, and its store.
        history: seconds that a log is kept.
        keep_bodies: seconds that the body of an ended build is kept.
        max_bytes: the limit for logs and bodies of ended builds together; 0: no limit.
    """

    def __init__(
        self, builds: JetStreamBuilds, *, history: float, keep_bodies: float, max_bytes: int
    ) -> None:
        self._builds = builds
        self._history = history
        self._keep_bodies = keep_bodies
        self._max_bytes = max_bytes

    async def run(self) -> None:
        """Sweep regularly until it is cancelled."""
        while True:
            # A random delay, so that replicas that start together do not list the store together.
            await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 (no secret)
            try:
                deleted = await self.sweep(time.time())
            except (Unavailable, StoreError) as error:
                _log.warning("old logs and bodies cannot be deleted", reason=str(error))
            else:
                _log.debug("old logs and bodies are deleted", objects=deleted)

    async def sweep(self, now: float) -> int:
        """Delete objects that are too old or exceed the limit; return how many.

        Raises:
            Unavailable: JetStream is unreachable.
            StoreError: the store failed.
        """
        store = self._builds.store
        kept: list[StoredObject] = []
        deleted = 0
        async for batch in store.list("logs"):
            old = [each for each in batch if each.modified < now - self._history]
            kept += [each for each in batch if each not in old] if self._max_bytes else []
            await store.delete([each.key for each in old])
            deleted += len(old)
        async for batch in store.list("bodies"):
            ended = await self._unneeded(batch, now)
            old = [each for each in ended if ended[each] < now - self._keep_bodies]
            kept += [each for each in ended if each not in old] if self._max_bytes else []
            await store.delete([each.key for each in old])
            deleted += len(old)
        if self._max_bytes:
            oldest = excess(kept, self._max_bytes)
            await store.delete(oldest)
            deleted += len(oldest)
        return deleted

    async def _unneeded(
        self, bodies: Sequence[StoredObject], now: float
    ) -> Mapping[StoredObject, float]:
        """The bodies that no build needs, and when each was needed last."""
        by_tenant: dict[str, dict[str, StoredObject]] = defaultdict(dict)
        for body in bodies:
            _, _, name = body.key.partition("/")
            tenant, _, build_id = name.partition("/")
            if is_id(build_id):
                by_tenant[tenant][build_id] = body
        unneeded: dict[StoredObject, float] = {}
        for tenant, named in by_tenant.items():
            found = await self._builds.records.of(tenant, list(named))
            for build_id, body in named.items():
                ended = _needed_last(found.get(build_id), body, now)
                if ended is not None:
                    unneeded[body] = ended
        return unneeded


def _needed_last(found: Found | None, body: StoredObject, now: float) -> float | None:
    if found is not None:
        return found.record.info.ended
    return body.modified if body.modified < now - _UNACKNOWLEDGED_SECONDS else None


def excess(objects: Iterable[StoredObject], limit: int) -> Sequence[str]:
    """The names of the oldest objects, whose deletion brings the others below a limit."""
    newest_first = sorted(objects, key=lambda each: each.modified, reverse=True)
    taken = 0
    names = []
    for each in newest_first:
        taken += each.size
        if taken > limit:
            names.append(each.key)
    return names
