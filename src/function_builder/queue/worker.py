"""Takes jobs while slots are free, and keeps alive those that run here."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Awaitable
from typing import Final, Generic

import structlog
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from function_builder.queue.builds import JetStreamBuilds
from function_builder.queue.jetstream import Unavailable
from function_builder.queue.job import ALIVE_EVERY, RETRY_SECONDS, Job
from function_builder.queue.runner import Place, Runner
from function_builder.queue.states import Record, choose
from function_builder.queue.streams import BUILDER_SUBJECTS, CANCEL, JOB_SUBJECTS, JOBS, WAKE

ACK_SECONDS: Final = 30.0
"""A job whose builder is silent for so long is handed to another one."""

_LOOK_EVERY: Final = 10.0
"""How often a worker looks without being told: a killed builder tells of no job."""

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
        self._consumers: set[str] = set()
        self._wake = asyncio.Event()
        self._draining = False
        self._running: set[asyncio.Task[None]] = set()
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
            job.give_back()
        if self._running:
            await asyncio.wait(self._running)

    async def _on_wake(self, _: Msg) -> None:
        self._wake.set()

    async def _on_cancel(self, message: Msg) -> None:
        job = self._jobs.get(message.subject.rpartition(".")[2])
        if job is not None:
            await job.look()

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
                    async with asyncio.timeout(_LOOK_EVERY if ready else RETRY_SECONDS):
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
        job = Job(self._builds, self._runner, message, record, keep_body=self._keep_bodies)
        self._jobs[job.id] = job
        slot = contextlib.ExitStack()
        place = slot.enter_context(self._runner.slot())
        seeing = self._see_through(job, slot, place)
        task = asyncio.create_task(seeing, name=f"job {job.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _see_through(self, job: Job[Place], slot: contextlib.ExitStack, place: Place) -> None:
        try:
            await job.see_through(slot, place)
        finally:
            self._jobs.pop(job.id, None)
            self._wake.set()
        if job.settled:
            self._spawn(self._forget_log(job.id))
        if job.returns_in:
            asyncio.get_running_loop().call_later(job.returns_in + 0.1, self._wake.set)

    async def _forget_log(self, build_id: str) -> None:
        # Followers read the last batches from the stream first.
        await asyncio.sleep(RETRY_SECONDS)
        await self._builds.logs.forget(build_id)

    async def _keep_alive(self) -> None:
        """Tell JetStream that the jobs here are alive, and look whether they still should be."""
        builds = self._builds
        while True:
            subject = f"{BUILDER_SUBJECTS}.{builds.owner}"
            with contextlib.suppress(Unavailable):
                await builds.jetstream.publish(subject, b"")
            for job in list(self._jobs.values()):
                await job.keep_alive()
            await asyncio.sleep(ALIVE_EVERY)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._purges.add(task)
        task.add_done_callback(self._purges.discard)
