"""The numbers of queued builds and callbacks of all builders, for the metrics.

Each scrape of the metrics needs them. They cost one request if the queue is empty, and at most
three for each of `MAX_TENANTS` tenants with builds in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from function_builder.queue import callback_stream
from function_builder.queue.jetstream import JetStream
from function_builder.queue.states import Record
from function_builder.queue.streams import JOB_SUBJECTS, JOBS

MAX_TENANTS: Final = 20
"""How many tenants have a number of their own: those with the most builds in the queue."""

OTHERS: Final = "_others"
"""The label of all other tenants, whose builds are counted together."""


class Depth(NamedTuple):
    """The contents of the queue.

    Attributes:
        waiting: by tenant, builds that no builder has started. For `OTHERS`, all of their builds.
        begun: by tenant, builds that were started and have not ended.
        oldest: for how many seconds the oldest waiting build has waited; 0 if none waits.
        callbacks: how many are neither delivered nor expired.
    """

    waiting: Mapping[str, int]
    begun: Mapping[str, int]
    oldest: float
    callbacks: int


class _Tenant(NamedTuple):
    waiting: int
    begun: int
    since: float | None


async def measure(jetstream: JetStream, now: float) -> Depth:
    """Ask JetStream for the depth.

    Args:
        jetstream: a connection.
        now: seconds since the epoch.

    Raises:
        Unavailable: it does not answer.
    """
    subjects = await jetstream.waiting(JOBS, f"{JOB_SUBJECTS}.*")
    counts = {subject.rpartition(".")[2]: count for subject, count in subjects.items()}
    most = sorted(counts, key=lambda tenant: (-counts[tenant], tenant))
    known = {
        tenant: await _tenant(jetstream, tenant, counts[tenant]) for tenant in most[:MAX_TENANTS]
    }
    waiting = {tenant: each.waiting for tenant, each in known.items()}
    if others := most[MAX_TENANTS:]:
        waiting[OTHERS] = sum(counts[tenant] for tenant in others)
    since = [each.since for each in known.values() if each.since is not None]
    return Depth(
        waiting,
        {tenant: each.begun for tenant, each in known.items()},
        max(now - min(since), 0.0) if since else 0.0,
        await jetstream.count(callback_stream.STREAM),
    )


async def _tenant(jetstream: JetStream, tenant: str, count: int) -> _Tenant:
    progress = await jetstream.progress(JOBS, tenant)
    waiting = max(count - progress.unacknowledged, 0)
    if not waiting:
        return _Tenant(0, count, None)
    subject = f"{JOB_SUBJECTS}.{tenant}"
    first = await jetstream.from_sequence(JOBS, subject, progress.delivered + 1, 1)
    since = Record.parse(first[0].data).info.created if first else None
    return _Tenant(waiting, count - waiting, since)
