"""The state that the endpoints share, and the order of the shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import structlog

from function_builder.buildkits.pools import Pools
from function_builder.builds.build import Build, Outcome
from function_builder.builds.builder import Builder
from function_builder.builds.failures import Failure
from function_builder.builds.masking import Mask
from function_builder.builds.phases import BuildPhase
from function_builder.builds.transcript import Transcript
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import Reason
from function_builder.contract.timestamp import Timestamp
from function_builder.disk import Disk
from function_builder.queue.port import Builds, SignOuts, UsageStore
from function_builder.server.claims import CurrentTenants
from function_builder.server.decisions import Audit
from function_builder.server.places import NoSlot, Place
from function_builder.server.prometheus import Metrics
from function_builder.server.quotas import Quotas
from function_builder.server.reading import Caller
from function_builder.server.replays import Replays
from function_builder.server.slots import Slots
from function_builder.server.spool import SpoolSpace
from function_builder.server.tracing import Tracing, forwarded
from function_builder.server.unread import UnreadLogs
from function_builder.server.uploads import Uploads
from function_builder.settings import Settings

_log = structlog.get_logger(__name__)


class Phase(Enum):
    """The phases of a builder process, in order."""

    SERVING = "serving"
    LEAVING = "leaving"
    """`/ready` answers 503, but new requests are still accepted."""
    DRAINING = "draining"
    """New requests are refused. Accepted ones may still get a slot, and run to their end."""
    ENDING = "ending"
    """No build starts any more, because its client would not get the outcome."""


class Drained(Protocol):
    """The part of the worker of queued builds that the shutdown uses."""

    async def drain(self) -> None:
        """Start no more builds, and return the running ones to the queue."""


class Usage(Protocol):
    """Counts the usage of tenants, and answers `GET /usage`.

    Attributes:
        store: keeps the usage over restarts; None: it counts from the start of the process.
    """

    store: UsageStore | None

    def count_received(self, tenant: str, size: int) -> None:
        """Count the bytes of a body whose tenant is proven."""

    def count_build(self, build: Build) -> None:
        """Count a build that has ended."""

    def count_limited(self, tenant: str, refusal: Refusal) -> None:
        """Count a request that was refused, if it met a limit."""

    async def write_changes(self) -> None:
        """Write changes to the store until it is cancelled."""

    async def flush(self) -> None:
        """Write the changes to the store now; raises `QueueUnavailable`."""

    async def document(self, query: Mapping[str, str], caller: Caller) -> dict[str, object]:
        """The usage that a caller may see, in the API's form.

        Raises:
            Refusal: 400, 403 or 503.
        """


@dataclass(slots=True, eq=False)
class Service:
    """The state of one builder process.

    Attributes:
        uploads: bodies that are being received; they hold no build slots.
        unread: logs of ended builds that their clients are still reading.
        quotas: how many builds a tenant may start.
        space: the directory of large bodies.
        large_checks: limits how many large bodies are checked at a time, so that threads are free
            for small ones.
        replays: the requests that were accepted; None: a request may be repeated.
        tracing: enters the trace of a request.
        tenants: of `tenants_file`; None: there is one tenant.
        usage: counts the usage of tenants; None: there is one tenant.
        audit: the audit log; None: there is none.
        builds: builds that outlive their connection; None: there is no queue.
        sign_outs: the sessions of browsers that signed out; None: no queue, or no web pages.
        worker: runs builds from the queue; None: there is no queue.
        running: the task of each build that has a slot.
        followers: the task of each reader of a queued build's log.
        accepted: the task of each build request whose signature is proven, by its headers or its
            body, until it is answered.
    """

    settings: Settings
    builder: Builder
    pools: Pools
    metrics: Metrics
    slots: Slots
    uploads: Uploads
    unread: UnreadLogs
    quotas: Quotas
    space: SpoolSpace
    large_checks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    replays: Replays | None = None
    tenants: CurrentTenants | None = None
    audit: Audit | None = None
    usage: Usage | None = None
    builds: Builds | None = None
    sign_outs: SignOuts | None = None
    worker: Drained | None = None
    tracing: Tracing = forwarded
    phase: Phase = Phase.SERVING
    running: set[asyncio.Task[None]] = field(default_factory=set)
    followers: set[asyncio.Task[None]] = field(default_factory=set)
    accepted: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self) -> None:
        """Note that the current task's request is proven, so that a drain waits for it."""
        task = asyncio.current_task()
        assert task is not None
        self.accepted.add(task)
        task.add_done_callback(self.accepted.discard)

    async def run(self, build: Build, place: Place, signed: Timestamp | None = None) -> None:
        """Run a build as soon as it has a slot. The build always has a result afterwards.

        The builder cancels the task of this call when it shuts down.

        Args:
            build: the build.
            place: its slot, or its place in the queue.
            signed: its verified timestamp, to refuse replays.
        """
        task = asyncio.current_task()
        assert task is not None
        try:
            await self._slot(build, place)
            if self.replays is not None and signed is not None:
                # Not earlier, because a client may repeat a request that got no slot.
                self.replays.remember(signed)
            build.measures.end(BuildPhase.WAIT)
            self.running.add(task)
            _log.info("build started", image=build.request.config.image)
            await self.builder.run(build)
        except Refusal as refusal:
            build.refuse(refusal)
        finally:
            self.running.discard(task)
            if build.result is None:
                error = "the build was cancelled before it began"
                failure = Failure(error=error, reason=Reason.CANCELLED, retryable=True)
                build.fail(Outcome.CANCELLED, failure)

    async def _slot(self, build: Build, place: Place) -> None:
        """Wait for the build's slot, and report its position to its client.

        Raises:
            Refusal: it waited too long, or the builder ends.
        """
        transcript = Transcript(Mask({}), prefixes=self.settings.log_prefixes)
        limit, name = self.settings.queue_timeout, "queue_timeout"
        asked = build.request.config.queue_timeout
        if asked is not None and asked < limit:
            limit, name = asked, "queueTimeout"
        if place.position:
            _log.info("build waits", position=place.position)
        try:
            async with asyncio.timeout(limit):
                async for position in place.positions():
                    line = f"Waiting for a build slot: place {position} in the queue."
                    build.wait(transcript.note(line))
        except TimeoutError:
            line = f"No build slot was free within {limit:g} s ({name}): send it again."
            build.wait(transcript.note(line))
            raise NoSlot(self.slots.limit, "queue_timeout") from None

    def unready_because(self) -> str:
        """Why the builder should get no requests; empty if it should."""
        if self.phase is not Phase.SERVING:
            return "the builder is shutting down"
        if self.slots.all_taken and not self.settings.ready_when_full:
            return "every build slot is taken"
        if not self.pools.shared.reachable:
            return "BuildKit cannot be reached"
        if self.spool_disk().nearly_full:
            return "the disk for request bodies is nearly full"
        return ""

    def end(self, reason: str) -> None:
        """Start no more builds, and cancel the running ones; each tells its client the reason."""
        self.phase = Phase.ENDING
        self.slots.close()
        self.uploads.end_all()
        for task in self.running | self.followers:
            task.cancel(reason)

    def spool_disk(self) -> Disk:
        """The disk for request bodies; full if it cannot be read."""
        try:
            return Disk.of(self.settings.spool_dir)
        except OSError:
            return Disk(0, 1)
