"""Which builders are alive: each sends a heartbeat, which NATS keeps for some time."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from function_builder.contract.builds import BuildState
from function_builder.queue.clock import Clock
from function_builder.queue.jetstream import JetStream
from function_builder.queue.states import Record
from function_builder.queue.streams import BUILDER_SUBJECTS, BUILDERS

_SYNCHRONOUS_FACTOR: Final = 4
"""A synchronous build is lost after so many times `lost_after` at the earliest."""


class Heartbeats:
    """The heartbeats of all builders that share a queue.

    Args:
        jetstream: a connection.
        clock: gets the time of NATS from each heartbeat.
        owner: this builder's name among all.
        lost_after: seconds without a heartbeat after which a builder is lost.
    """

    def __init__(
        self, jetstream: JetStream, clock: Clock, *, owner: str, lost_after: float
    ) -> None:
        self._jetstream = jetstream
        self._clock = clock
        self._owner = owner
        self._lost_after = lost_after

    async def send(self) -> None:
        """Send this builder's heartbeat, and set the clock by the time at which NATS stored it.

        Raises:
            Unavailable: JetStream does not answer.
        """
        subject = f"{BUILDER_SUBJECTS}.{self._owner}"
        await self._jetstream.publish(subject, b"")
        if (stored := await self._jetstream.last(BUILDERS, subject)) is not None:
            self._clock.set(datetime.fromisoformat(stored.written).timestamp())

    async def silent(self, owners: Collection[str]) -> Collection[str]:
        """Those of these builders that have sent no heartbeat for twice `lost_after`.

        Raises:
            Unavailable: JetStream does not answer.
        """
        subjects = {f"{BUILDER_SUBJECTS}.{owner}": owner for owner in owners}
        stored = await self._jetstream.last_of(BUILDERS, list(subjects))
        return [subjects[each] for each in subjects.keys() - {one.subject for one in stored}]

    async def lost(self, record: Record, now: float) -> bool:
        """Whether a synchronous build runs on a builder that is lost.

        A queued build is not lost, because another builder starts it again.
        """
        info = record.info
        if info.asynchronous or info.state is not BuildState.RUNNING:
            return False
        age = now - (info.started or info.created)
        if age < _SYNCHRONOUS_FACTOR * self._lost_after or record.owner == self._owner:
            return False
        return await self._jetstream.last(BUILDERS, f"{BUILDER_SUBJECTS}.{record.owner}") is None
