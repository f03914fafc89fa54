"""One job that JetStream delivered to this builder, from its record to its acknowledgment.

A build ends in this order: its log is stored, its result is stored in the record, its callback is
stored, its job is acknowledged. If the builder is killed before the last step, JetStream delivers
the job to another builder, which completes the steps (`states.next_step`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Final, Generic

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NATSError
from structlog.contextvars import bound_contextvars

from function_builder.builds.build import Build, Outcome
from function_builder.contract.builds import DEFAULT_TENANT, BuildState
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import Reason
from function_builder.contract.result import BuildStatus
from function_builder.queue.builds import JetStreamBuilds, body_key
from function_builder.queue.connection import Changed, Unavailable
from function_builder.queue.records import Found
from function_builder.queue.runner import Place, Runner
from function_builder.queue.states import MAX_LOSSES, Record, Step, next_step
from function_builder.queue.streams import WAKE
from function_builder.store import NotStored, StoreError

_HEARTBEAT_SECONDS: Final = 8.0
"""How often the publisher of an idle log wakes."""

RETRY_SECONDS: Final = 1.0
_LAST_LINES_SECONDS: Final = 5.0
_BUILDKIT_SECONDS: Final = 5.0
"""A build that found no BuildKit is redelivered after this time."""

_log = structlog.get_logger(__name__)


class Job(Generic[Place]):
    """A job that JetStream delivered to this builder.

    Args:
        builds: the queue.
        runner: runs the build here.
        message: the job's message.
        record: the build, as in the message.
        keep_body: whether the body is kept when the build has ended.
        last_attempt: held by the one build here that runs its last attempt.

    Attributes:
        message: the message to acknowledge; a new one after each redelivery.
        found: the build's record, as this builder knows it.
        settled: whether the build has ended and the job is acknowledged.
        returns_in: seconds until JetStream redelivers the job; 0: at once, or never.
    """

    def __init__(
        self,
        builds: JetStreamBuilds,
        runner: Runner[Place],
        message: Msg,
        record: Record,
        *,
        keep_body: bool,
        last_attempt: asyncio.Lock,
    ) -> None:
        self.message = message
        self.found = Found(record, 0)
        self.settled = False
        self.returns_in = 0.0
        self._builds = builds
        self._runner = runner
        self._keep_body = keep_body
        self._last_attempt = last_attempt
        # The task of its build; None before and after.
        self._building: asyncio.Task[None] | None = None
        # Whether the builder drains, so that another builder may start the build.
        self._stopping = False
        # Whether the build was cancelled, or another builder has started it.
        self._unwanted = False

    @property
    def id(self) -> str:
        """The build's id."""
        return self.found.record.info.id

    def stop(self) -> None:
        """Stop the build, so that another builder starts it."""
        self._stopping = True
        self._stop("the builder is shutting down")

    async def see_through(self, slot: contextlib.ExitStack, place: Place) -> None:
        """Do the next step, which the record determines.

        Args:
            slot: closed as soon as the build has ended.
            place: the slot.
        """
        tenant = self.found.record.tenant
        names = {} if tenant == DEFAULT_TENANT else {"tenant": tenant}
        with bound_contextvars(build=self.id, **names), slot:
            try:
                await self._handle(slot, place)
            except (Unavailable, StoreError, Changed) as error:
                slot.close()
                _log.warning("a queued build waits", reason=str(error))
                await self._requeue(RETRY_SECONDS)
            except Exception:  # noqa: BLE001 (a fault in one build must not end the others)
                slot.close()
                _log.exception("a queued build failed in the builder; it is retried")
                await self._requeue(_BUILDKIT_SECONDS)

    async def keep_alive(self) -> None:
        """Tell JetStream that the job is in progress, and end a build that should not run."""
        with contextlib.suppress(NATSError):
            await self.message.in_progress()
        await self.check()

    async def check(self) -> None:
        """End the build if it was cancelled, or if another builder has started it."""
        with contextlib.suppress(Unavailable):
            found = await self._builds.records.get(self.found.record.tenant, self.id)
            if found is None or found.revision <= self.found.revision:
                return
            ours = found.record.owner == self._builds.owner
            if found.record.info.state is not BuildState.RUNNING or not ours:
                self._unwanted = True
                self._stop("the build was cancelled")

    async def _handle(self, slot: contextlib.ExitStack, place: Place) -> None:
        records = self._builds.records
        tenant, build_id = self.found.record.tenant, self.id
        # The submission was interrupted before it stored the record, or is about to store it.
        self.found = await records.get(tenant, build_id) or self.found
        losses = self.found.record.losses
        step, record = next_step(self.found.record, self._builds.owner, self._builds.clock.now())
        if step is Step.RUN:
            await self._attempt(record, slot, place, lost=record.losses > losses)
            return
        if step is not Step.SETTLE:
            self.found = await records.update(self.found._replace(record=record))
        slot.close()
        await self._settle()

    async def _attempt(
        self, record: Record, slot: contextlib.ExitStack, place: Place, *, lost: bool
    ) -> None:
        """Start the build, unless another one has to end first.

        A build that kills its BuildKit also ends the builds beside it. If they always ran beside
        it, they would be lost as often. So last attempts run one after the other.
        """
        async with contextlib.AsyncExitStack() as held:
            is_last = record.losses + 1 >= MAX_LOSSES
            if self._stopping or (is_last and self._last_attempt.locked()):
                if record is not self.found.record:
                    self.found = await self._builds.records.update(
                        Found(record, self.found.revision)
                    )
                await self._requeue(0 if self._stopping else _BUILDKIT_SECONDS)
                return
            if is_last:
                await held.enter_async_context(self._last_attempt)
            started = record.start(self._builds.owner, self._builds.clock.now())
            self.found = await self._builds.records.update(Found(started, self.found.revision))
            if not await self._run(slot, place, lost=lost):
                return
        await self._settle()

    async def _run(self, slot: contextlib.ExitStack, place: Place, *, lost: bool) -> bool:
        """Run the build; returns whether it has ended, and its job may be acknowledged."""
        builds, record = self._builds, self.found.record
        await builds.events.started(record)
        first = await builds.logs.next_number(self.id) if record.info.attempt > 1 else 1
        try:
            body = builds.store.get(body_key(record.tenant, self.id))
            build = await self._runner.prepare(record, body)
        except NotStored:
            return await self._refused("the build's body is no longer stored", first)
        except Refusal as refusal:
            return await self._refused(refusal.reason, first)
        if record.info.attempt > 1:
            why = (
                "the builder that ran this build was lost"
                if lost
                else "it was returned to the queue"
            )
            build.log.append([f"Attempt {record.info.attempt}: {why}."])
        publishing = asyncio.create_task(
            builds.logs.publish(self.id, first, build.log.follow(_HEARTBEAT_SECONDS))
        )
        try:
            await self._build(build, place)
            slot.close()
            # The line numbers continue after those of earlier attempts.
            await asyncio.wait([publishing], timeout=_LAST_LINES_SECONDS)
        finally:
            publishing.cancel()
            self._runner.release(build)
        return await self._end(build, first)

    async def _build(self, build: Build, place: Place) -> None:
        building = asyncio.create_task(self._runner.run(build, place), name=f"build {self.id}")
        # Not cancelled before its first step: such a task would run nothing, and end no build.
        await asyncio.sleep(0)
        self._building = building
        if self._unwanted or self._stopping:
            self._stop("the build was cancelled")
        await asyncio.wait([building])
        self._building = None
        if not building.cancelled() and (fault := building.exception()) is not None:
            _log.error("a build crashed", exc_info=fault)

    async def _refused(self, reason: str, first: int) -> bool:
        record = self.found.record.fail(reason, Reason.POLICY, self._builds.clock.now())
        return await self._record_end(record, first, [])

    async def _end(self, build: Build, first: int) -> bool:
        record, result = self.found.record, build.result
        assert result is not None
        if build.outcome is Outcome.UNREACHABLE:
            # The build has not started: it waits until BuildKit answers.
            await self._requeue(_BUILDKIT_SECONDS)
            return False
        if build.outcome is Outcome.LOST and record.losses + 1 < MAX_LOSSES:
            await self._requeue(RETRY_SECONDS, lost=True)
            return False
        if self._stopping and build.outcome is Outcome.CANCELLED:
            await self._requeue(0)
            return False
        state = BuildState.SUCCESS
        if result.status is not BuildStatus.SUCCESS:
            state = BuildState.FAILED
        phases = {phase.value: took for phase, took in build.measures.seconds().items()}
        info = dataclasses.replace(record.info, phases=phases)
        record = dataclasses.replace(record, info=info)
        duration = max(time.time() - record.info.created, 0.0)
        result = dataclasses.replace(result, duration=round(duration, 3))
        return await self._record_end(
            record.end(state, result, self._builds.clock.now(), None), first, build.log.lines
        )

    async def _record_end(self, record: Record, first: int, lines: Sequence[str]) -> bool:
        """Store log and result, without a timeout; return whether the build is this builder's."""
        builds = self._builds
        while True:
            try:
                # The log of another builder's attempt must stay.
                if await self._is_changed():
                    raise Changed  # noqa: TRY301 (the same answer)
                count = await builds.logs.store_whole(record.tenant, self.id, first, lines)
                ended = dataclasses.replace(record, lines=count)
                self.found = await builds.records.update(self.found._replace(record=ended))
            except Changed:
                current = await builds.records.get(record.tenant, self.id)
                if current is None or not current.record.info.state.ended:
                    _log.warning("another builder runs this build: this result is discarded")
                    return False
                # It was cancelled, but storing its log was still this builder's task.
                record = current.record
                self.found = current
                if record.lines is not None:
                    return True
            except (Unavailable, StoreError) as error:
                _log.warning("the result of a build cannot be stored yet", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return True

    async def _is_changed(self) -> bool:
        current = await self._builds.records.get(self.found.record.tenant, self.id)
        return current is not None and current.revision > self.found.revision

    async def _settle(self) -> None:
        """Store the callback of an ended build, then acknowledge its job."""
        builds, record = self._builds, self.found.record
        if record.lines is None:
            first = await builds.logs.next_number(self.id)
            await self._record_end(record, first, [])
            record = self.found.record
        await builds.finish_up(record)
        if not self._keep_body:
            await builds.store.delete([body_key(record.tenant, self.id)])
        with contextlib.suppress(NATSError):
            await self.message.ack_sync()
        self.settled = True

    async def _requeue(self, delay: float, *, lost: bool = False) -> None:
        """Let another builder start the build, or complete its end.

        JetStream does not redeliver the job before the record is stored: another builder would
        count this one as lost. A builder that drains waits for NATS no longer than one request.
        """
        record = self.found.record
        back = record.lose() if lost else record.requeue()
        while record.info.state is BuildState.RUNNING:
            try:
                self.found = await self._builds.records.update(self.found._replace(record=back))
            except Changed:
                # It was cancelled, another builder has started it, or it is stored already.
                break
            except Unavailable as error:
                if self._stopping:
                    return
                _log.warning("a build cannot be returned to the queue yet", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break
        with contextlib.suppress(NATSError, OSError, TimeoutError):
            await self.message.nak(delay=delay or None)
            self.returns_in = delay
            await self._builds.notify(f"{WAKE}.{record.tenant}")

    def _stop(self, reason: str) -> None:
        """End the build, if it runs."""
        if self._building is not None:
            self._building.cancel(reason)
