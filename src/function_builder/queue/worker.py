"""Takes jobs while slots are free, and sees each of them to its end.

A build that was begun ends in this order: its log is stored, its record says how it ended, its
callback is queued, its job is acknowledged. A builder that is killed before the last step loses the
job to another one, which does what is missing (`states.next_step`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Generic, Protocol, TypeVar

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NATSError
from nats.js.api import AckPolicy, ConsumerConfig
from structlog.contextvars import bound_contextvars

from function_builder.builds.build import Build, Outcome
from function_builder.contract.builds import BuildState
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import Reason
from function_builder.contract.result import BuildStatus
from function_builder.queue.builds import (
    BUILDER_SUBJECTS,
    CANCEL,
    JOB_SUBJECTS,
    JOBS,
    WAKE,
    JetStreamBuilds,
    body_key,
)
from function_builder.queue.jetstream import Changed, Unavailable
from function_builder.queue.records import Found
from function_builder.queue.states import MAX_LOSSES, Record, Step, choose, next_step
from function_builder.store import NotStored, StoreError

ACK_SECONDS: Final = 30.0
"""A job whose builder is silent for so long is handed to another one."""

_ALIVE_EVERY: Final = 8.0
_LOOK_EVERY: Final = 10.0
"""How often a worker looks without being told: a killed builder tells of no job."""

_RETRY_SECONDS: Final = 1.0
_LAST_LINES_SECONDS: Final = 5.0
_BUILDKIT_SECONDS: Final = 5.0
"""A build that found no BuildKit is handed out again after so long."""

_log = structlog.get_logger(__name__)

Place = TypeVar("Place")


class Runner(Protocol[Place]):
    """What the server does for the queue."""

    def ready(self) -> bool:
        """Whether a build may begin now: BuildKit answers, and the builder is not shutting down."""

    def slot(self) -> AbstractContextManager[Place]:
        """Take a slot, which must be free."""

    async def until_free(self) -> None:
        """Wait until a slot is free."""

    async def prepare(self, record: Record, body: AsyncIterator[bytes]) -> Build:
        """Read a stored body, check it again, and make a build of it.

        Raises:
            Refusal: it cannot be built.
        """

    async def run(self, build: Build, place: Place) -> None:
        """Run it to its end; canceled, the build ends as canceled."""

    def release(self, build: Build) -> None:
        """Note the end of a build, and give back what it held."""


@dataclasses.dataclass(slots=True, eq=False)
class _Job:
    """A job that this builder was handed.

    Attributes:
        message: what is acknowledged; a newer one if JetStream handed it out again.
        found: the build's record, as this builder wrote it last.
        task: sees it through.
        building: runs its build; None before and after.
        giving_back: the builder leaves, so that another one may begin the build.
        unwanted: the build was canceled, or another builder has begun it.
    """

    message: Msg
    found: Found
    task: asyncio.Task[None] | None = None
    building: asyncio.Task[None] | None = None
    giving_back: bool = False
    unwanted: bool = False

    @property
    def id(self) -> str:
        return self.found.record.info.id

    def stop(self, reason: str) -> None:
        """End its build, if it runs."""
        if self.building is not None:
            self.building.cancel(reason)


class Worker(Generic[Place]):
    """Runs queued builds on this builder.

    Args:
        builds: the queue.
        runner: runs a build here.
        keep_bodies: whether the body of an ended build is kept.
    """

    def __init__(
        self, builds: JetStreamBuilds, runner: Runner[Place], *, keep_bodies: bool
    ) -> None:
        self._builds = builds
        self._runner = runner
        self._keep_bodies = keep_bodies
        self._jobs: dict[str, _Job] = {}
        self._consumers: set[str] = set()
        self._wake = asyncio.Event()
        self._draining = False
        self._purges: set[asyncio.Task[None]] = set()
        self.redelivered = 0

    async def run(self) -> None:
        """Take jobs until it is canceled."""
        client = self._builds.jetstream.client
        await client.subscribe(f"{WAKE}.*", cb=self._on_wake)
        await client.subscribe(f"{CANCEL}.*", cb=self._on_cancel)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_alive())
            tasks.create_task(self._take_jobs())

    async def drain(self) -> None:
        """Take no more jobs, and give back those that run, so that another builder begins them."""
        self._draining = True
        self._wake.set()
        for job in self._jobs.values():
            job.giving_back = True
            job.stop("the builder is shutting down")
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def _on_wake(self, _: Msg) -> None:
        self._wake.set()

    async def _on_cancel(self, message: Msg) -> None:
        job = self._jobs.get(message.subject.rpartition(".")[2])
        if job is not None:
            await self._look(job)

    async def _take_jobs(self) -> None:
        while not self._draining:
            await self._runner.until_free()
            self._wake.clear()
            taken = False
            ready = self._runner.ready()
            if ready and not self._draining:
                try:
                    taken = await self._take_one()
                except Unavailable as error:
                    _log.debug("no job can be taken", reason=str(error))
            if not taken:
                with contextlib.suppress(TimeoutError):
                    # Nothing tells that BuildKit answers again.
                    async with asyncio.timeout(_LOOK_EVERY if ready else _RETRY_SECONDS):
                        await self._wake.wait()

    async def _take_one(self) -> bool:
        jetstream = self._builds.jetstream
        found = await jetstream.waiting(JOBS, f"{JOB_SUBJECTS}.*")
        running = Counter(job.found.record.tenant for job in self._jobs.values())
        waiting = {subject.rpartition(".")[2]: count for subject, count in found.items()}
        for tenant in choose(waiting, running):
            if waiting[tenant] <= running[tenant]:
                # All of its jobs run here.
                continue
            await self._ensure_consumer(tenant)
            message = await jetstream.next_job(JOBS, tenant)
            if message is not None:
                self._start(message)
                return True
        return False

    async def _ensure_consumer(self, tenant: str) -> None:
        if tenant in self._consumers:
            return
        await self._builds.jetstream.ensure_consumer(
            JOBS,
            ConsumerConfig(
                durable_name=tenant,
                filter_subject=f"{JOB_SUBJECTS}.{tenant}",
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_SECONDS,
                # The record counts: a builder that drains gives its jobs back.
                max_deliver=-1,
                max_ack_pending=-1,
            ),
        )
        self._consumers.add(tenant)

    def _start(self, message: Msg) -> None:
        try:
            record = Record.parse(message.data)
        except ValueError as error:
            _log.error("a job that cannot be read is removed", reason=str(error))
            self._spawn(message.term())
            return
        if (running := self._jobs.get(record.info.id)) is not None:
            # NATS was away for longer than `ack_wait`; the build still runs here.
            running.message = message
            return
        if message.metadata.num_delivered > 1:
            self.redelivered += 1
        record = dataclasses.replace(record, job=message.metadata.sequence.stream)
        job = _Job(message, Found(record, 0))
        self._jobs[job.id] = job
        slot = contextlib.ExitStack()
        place = slot.enter_context(self._runner.slot())
        seeing = self._see_through(job, slot, place)
        job.task = asyncio.create_task(seeing, name=f"job {job.id}")

    async def _see_through(self, job: _Job, slot: contextlib.ExitStack, place: Place) -> None:
        with bound_contextvars(build=job.id), slot:
            try:
                await self._handle(job, slot, place)
            except (Unavailable, StoreError, Changed) as error:
                _log.warning("a queued build waits", reason=str(error))
                await self._give_back(job, _RETRY_SECONDS)
            except Exception:  # noqa: BLE001 (a fault in one build must not end the others)
                _log.exception("a queued build failed in the builder; it is tried again")
                await self._give_back(job, _BUILDKIT_SECONDS)
            finally:
                self._jobs.pop(job.id, None)
                self._wake.set()

    async def _handle(self, job: _Job, slot: contextlib.ExitStack, place: Place) -> None:
        records = self._builds.records
        tenant, build_id = job.found.record.tenant, job.id
        # The submission was cut off before it made the record, or it is about to.
        job.found = await records.get(tenant, build_id) or job.found
        was_running = job.found.record.info.state is BuildState.RUNNING
        step, record = next_step(job.found.record, time.time())
        if step is Step.RUN:
            job.found = await records.update(
                job.found._replace(record=record.begin(self._builds.owner, time.time()))
            )
            if await self._run(job, slot, place, lost=was_running):
                await self._settle(job)
            return
        if step is not Step.SETTLE:
            job.found = await records.update(job.found._replace(record=record))
        slot.close()
        await self._settle(job)

    async def _run(
        self, job: _Job, slot: contextlib.ExitStack, place: Place, *, lost: bool
    ) -> bool:
        """Run the build; returns whether it has ended, and its job may be acknowledged."""
        builds, record = self._builds, job.found.record
        await builds.events.started(record)
        first = await builds.logs.next_number(job.id) if record.info.attempt > 1 else 1
        try:
            body = builds.store.get(body_key(record.tenant, job.id))
            build = await self._runner.prepare(record, body)
        except NotStored:
            return await self._refused(job, "the build's body is not kept any more", first)
        except Refusal as refusal:
            return await self._refused(job, refusal.reason, first)
        if record.info.attempt > 1:
            why = "the builder that ran this build was lost" if lost else "it was given back"
            build.log.append([f"Attempt {record.info.attempt}: {why}."])
        publishing = asyncio.create_task(
            builds.logs.publish(job.id, first, build.log.follow(_ALIVE_EVERY))
        )
        try:
            await self._build(job, build, place)
            slot.close()
            # Another attempt goes on behind the last line.
            await asyncio.wait([publishing], timeout=_LAST_LINES_SECONDS)
        finally:
            publishing.cancel()
            self._runner.release(build)
        return await self._end(job, build, first)

    async def _build(self, job: _Job, build: Build, place: Place) -> None:
        job.building = asyncio.create_task(self._runner.run(build, place), name=f"build {job.id}")
        # The task takes its first step now, so that it ends its build even if it is canceled.
        await asyncio.sleep(0)
        if job.unwanted or job.giving_back:
            job.stop("the build was cancelled")
        await asyncio.wait([job.building])
        building, job.building = job.building, None
        if not building.cancelled() and (fault := building.exception()) is not None:
            _log.error("a build crashed", exc_info=fault)

    async def _refused(self, job: _Job, reason: str, first: int) -> bool:
        record = job.found.record.fail(reason, Reason.POLICY, time.time())
        return await self._record_end(job, record, first, [])

    async def _end(self, job: _Job, build: Build, first: int) -> bool:
        record, result = job.found.record, build.result
        assert result is not None
        if build.outcome is Outcome.UNREACHABLE:
            # Nothing was begun: it waits until a BuildKit is there.
            await self._give_back(job, _BUILDKIT_SECONDS)
            return False
        if build.outcome is Outcome.LOST and record.losses + 1 < MAX_LOSSES:
            await self._give_back(job, _RETRY_SECONDS, lost=True)
            return False
        if job.giving_back and build.outcome is Outcome.CANCELLED:
            await self._give_back(job, 0)
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
            job, record.end(state, result, time.time(), None), first, build.log.lines
        )

    async def _record_end(
        self, job: _Job, record: Record, first: int, lines: Sequence[str]
    ) -> bool:
        """Store the log and the end, as long as it takes; returns whether it is ours to end."""
        builds = self._builds
        while True:
            try:
                count = await builds.logs.store_whole(record.tenant, job.id, first, lines)
                ended = dataclasses.replace(record, lines=count)
                job.found = await builds.records.update(job.found._replace(record=ended))
            except Changed:
                current = await builds.records.get(record.tenant, job.id)
                if current is None or not current.record.info.state.ended:
                    _log.warning("another builder runs this build: its end here is dropped")
                    return False
                # It was canceled; its log was still ours to store.
                record = current.record
                job.found = current
                if record.lines is not None:
                    return True
            except (Unavailable, StoreError) as error:
                _log.warning("the end of a build cannot be stored yet", reason=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return True

    async def _settle(self, job: _Job) -> None:
        """What follows an end, then the acknowledgment of the job."""
        builds, record = self._builds, job.found.record
        if record.lines is None:
            first = await builds.logs.next_number(job.id)
            await self._record_end(job, record, first, [])
            record = job.found.record
        await builds.finish_up(record)
        if not self._keep_bodies:
            await builds.store.delete([body_key(record.tenant, job.id)])
        with contextlib.suppress(NATSError):
            await job.message.ack_sync()
        self._spawn(self._forget_log(job.id))

    async def _forget_log(self, build_id: str) -> None:
        # Followers read the last batches from the stream first.
        await asyncio.sleep(_RETRY_SECONDS)
        await self._builds.logs.forget(build_id)

    async def _give_back(self, job: _Job, delay: float, *, lost: bool = False) -> None:
        """Let another builder begin the build, unless it has ended."""
        record = job.found.record
        with contextlib.suppress(Unavailable, Changed, NATSError, OSError, TimeoutError):
            if record.info.state is BuildState.RUNNING:
                back = record.lose() if lost else record.give_back()
                job.found = await self._builds.records.update(job.found._replace(record=back))
            await job.message.nak(delay=delay or None)
            await self._builds.tell(f"{WAKE}.{record.tenant}")
            if delay:
                asyncio.get_running_loop().call_later(delay + 0.1, self._wake.set)

    async def _keep_alive(self) -> None:
        """Tell JetStream that the jobs here are alive, and look whether they still should be."""
        builds = self._builds
        while True:
            subject = f"{BUILDER_SUBJECTS}.{builds.owner}"
            with contextlib.suppress(Unavailable):
                await builds.jetstream.publish(subject, b"")
            for job in list(self._jobs.values()):
                with contextlib.suppress(NATSError):
                    await job.message.in_progress()
                await self._look(job)
            await asyncio.sleep(_ALIVE_EVERY)

    async def _look(self, job: _Job) -> None:
        """End a build here that was canceled, or that another builder has begun."""
        with contextlib.suppress(Unavailable):
            found = await self._builds.records.get(job.found.record.tenant, job.id)
            if found is None or found.revision <= job.found.revision:
                return
            ours = found.record.owner == self._builds.owner
            if found.record.info.state is not BuildState.RUNNING or not ours:
                job.unwanted = True
                job.stop("the build was cancelled")

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._purges.add(task)
        task.add_done_callback(self._purges.discard)
