"""Fetches jobs when this builder has slots for them, and reports their progress to JetStream.

For each tenant that has jobs, the worker waits for a slot, as a synchronous request does. It
fetches a job only when it has the slot, so no job waits here while another builder has free slots.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Awaitable
from functools import partial
from typing import Final, Generic

import structlog
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from function_builder.queue.builds import JetStreamBuilds
from function_builder.queue.connection import Unavailable
from function_builder.queue.job import RETRY_SECONDS, Job
from function_builder.queue.runner import Place, Runner
from function_builder.queue.states import Record
from function_builder.queue.streams import CANCEL, JOB_SUBJECTS, JOBS, WAKE

_LOOK_EVERY: Final = 10.0
"""The longest time between two checks for jobs: a killed builder sends no notification."""

_log = structlog.get_logger(__name__)


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
        self._jobs: dict[str, Job[Place]] = {}
        self._consumers: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._draining = False
        self._last_attempt = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()
        self._turns: dict[str, asyncio.Task[None]] = {}
        self._in_line: set[str] = set()
        self._look_again: set[str] = set()
        self._purges: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Fetch and run jobs until it is cancelled."""
        client = self._builds.jetstream.client
        await client.subscribe(f"{WAKE}.*", cb=self._on_wake)
        await client.subscribe(f"{CANCEL}.*", cb=self._on_cancel)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_alive())
            tasks.create_task(self._fetch_jobs())

    async def drain(self) -> None:
        """Fetch no more jobs, and return the running ones, so that another builder starts them."""
        self._draining = True
        self._wake.set()
        for tenant in self._in_line:
            self._turns[tenant].cancel()
        for job in self._jobs.values():
            job.stop()
        # A job that JetStream is delivering now is started, and returned.
        while tasks := self._running | set(self._turns.values()):
            await asyncio.wait(tasks)

    async def _on_wake(self, _: Msg) -> None:
        self._wake.set()

    async def _on_cancel(self, message: Msg) -> None:
        job = self._jobs.get(message.subject.rpartition(".")[2])
        if job is not None:
            await job.check()

    async def _fetch_jobs(self) -> None:
        """Wait for a slot for each tenant with jobs."""
        look_every = min(_LOOK_EVERY, self._builds.lost_after)
        while not self._draining:
            self._wake.clear()
            ready = self._can_take
            if ready:
                try:
                    await self._wait_for_slots()
                except Unavailable as error:
                    ready = False
                    _log.debug("no job can be fetched", reason=str(error))
            with contextlib.suppress(TimeoutError):
                # No notification says that BuildKit answers again.
                async with asyncio.timeout(look_every if ready else RETRY_SECONDS):
                    await self._wake.wait()

    @property
    def _can_take(self) -> bool:
        return self._builds.jetstream.connected and self._runner.ready()

    async def _wait_for_slots(self) -> None:
        found = await self._builds.jetstream.waiting(JOBS, f"{JOB_SUBJECTS}.*")
        here = Counter(job.found.record.tenant for job in self._jobs.values())
        for subject, count in found.items():
            tenant = subject.rpartition(".")[2]
            if count <= here[tenant] or self._draining:
                # All of its jobs run here.
                continue
            if tenant in self._turns:
                # Its task may just have found no job.
                self._look_again.add(tenant)
                continue
            task = asyncio.create_task(self._start_jobs(tenant), name=f"jobs of {tenant}")
            self._turns[tenant] = task
            task.add_done_callback(partial(self._end_of_turns, tenant))

    async def _start_jobs(self, tenant: str) -> None:
        """Start a tenant's jobs, each when it has a slot, until there are none."""
        while not self._draining:
            with contextlib.ExitStack() as held:
                place = held.enter_context(self._runner.turn(tenant))
                self._in_line.add(tenant)
                try:
                    has_slot = await self._runner.until_slot(place)
                finally:
                    self._in_line.discard(tenant)
                # Without a connection, a request would occupy the slot until its timeout.
                if not (has_slot and self._can_take):
                    return
                message = await self._next_job(tenant)
                if message is None:
                    return
                self._start(message, held.pop_all(), place)

    def _end_of_turns(self, tenant: str, task: asyncio.Task[None]) -> None:
        del self._turns[tenant]
        if tenant in self._look_again or not self._can_take:
            self._look_again.discard(tenant)
            self._wake.set()
        if not task.cancelled() and (fault := task.exception()) is not None:
            _log.error("the jobs of a tenant cannot be fetched", tenant=tenant, exc_info=fault)

    async def _next_job(self, tenant: str) -> Msg | None:
        try:
            await self._ensure_consumer(tenant)
            return await self._builds.jetstream.next_job(JOBS, tenant)
        except Unavailable as error:
            _log.debug("no job can be fetched", tenant=tenant, reason=str(error))
            # The consumer may be lost, if the queue has lost its disk.
            self._consumers.pop(tenant, None)
            return None

    async def _ensure_consumer(self, tenant: str) -> None:
        limit = self._runner.max_inflight(tenant)
        if self._consumers.get(tenant) == limit:
            return
        await self._builds.jetstream.ensure_consumer(
            JOBS,
            ConsumerConfig(
                durable_name=tenant,
                filter_subject=f"{JOB_SUBJECTS}.{tenant}",
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=self._builds.lost_after,
                # The record counts losses, because a builder that drains returns its jobs too.
                max_deliver=-1,
                # Over all builders: JetStream delivers no more until one is acknowledged.
                max_ack_pending=limit or -1,
            ),
        )
        self._consumers[tenant] = limit

    def _start(self, message: Msg, slot: contextlib.ExitStack, place: Place) -> None:
        """Start a job.

        Args:
            message: the job's.
            slot: closed by this call, or when the build has ended.
            place: the slot.
        """
        with slot:
            if self._draining:
                self._spawn(message.nak())
                return
            try:
                record = Record.parse(message.data)
            except ValueError as error:
                _log.error("a job that cannot be read is removed", reason=str(error))
                self._spawn(message.term())
                return
            if (running := self._jobs.get(record.info.id)) is not None:
                # NATS was unreachable for longer than `ack_wait`; the build still runs here.
                running.message = message
                return
            if message.metadata.num_delivered > 1:
                self._runner.note_redelivery()
            record = dataclasses.replace(record, job=message.metadata.sequence.stream)
            job = Job(
                self._builds,
                self._runner,
                message,
                record,
                keep_body=self._keep_bodies,
                last_attempt=self._last_attempt,
            )
            self._jobs[job.id] = job
            seeing = self._see_through(job, slot.pop_all(), place)
        task = asyncio.create_task(seeing, name=f"job {job.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _see_through(self, job: Job[Place], slot: contextlib.ExitStack, place: Place) -> None:
        try:
            await job.see_through(slot, place)
        finally:
            self._jobs.pop(job.id, None)
        if job.settled:
            self._spawn(self._forget_log(job.id))
        tenant = job.found.record.tenant
        if self._runner.max_inflight(tenant):
            # Another builder may have found no job, because the tenant's limit was reached.
            self._spawn(self._builds.notify(f"{WAKE}.{tenant}"))
        if job.returns_in:
            asyncio.get_running_loop().call_later(job.returns_in + 0.1, self._wake.set)

    async def _forget_log(self, build_id: str) -> None:
        # Followers first read the last batches from the stream.
        await asyncio.sleep(RETRY_SECONDS)
        await self._builds.logs.forget(build_id)

    async def _keep_alive(self) -> None:
        """Tell JetStream that the jobs are in progress, and end those that should not run."""
        builds = self._builds
        while True:
            with contextlib.suppress(Unavailable):
                await builds.heartbeats.send()
            for job in list(self._jobs.values()):
                await job.keep_alive()
            # Three in each `lost_after`, so that two may be lost.
            await asyncio.sleep(builds.lost_after / 4)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._purges.add(task)
        task.add_done_callback(self._purges.discard)
