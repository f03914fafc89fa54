"""The queue on JetStream and an object store: it implements `port.Builds`.

A submission is written in this order, and acknowledged after the last write:

1. its body, in the store;
2. its idempotency key, which names the build;
3. its job, with all that is needed to make the record;
4. its record.

So a killed builder leaves one of three things. A body without a job is deleted by `retention`. The
id of a key without a record is used by the next request with that key. For a job without a record,
the worker makes the record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence

import structlog

from function_builder.contract.builds import BuildInfo, BuildState, is_id, new_id
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import Reason
from function_builder.contract.reader import Reader
from function_builder.contract.tenancy import LimitMet, OverLimit
from function_builder.queue.callback_stream import CallbackStream
from function_builder.queue.claims import Claims
from function_builder.queue.clock import Clock
from function_builder.queue.connection import Changed, Full, Unavailable
from function_builder.queue.events import Events
from function_builder.queue.heartbeats import Heartbeats
from function_builder.queue.jetstream import JetStream
from function_builder.queue.listing import Listing, Wanted
from function_builder.queue.logs import Logs
from function_builder.queue.port import Idempotency, LogBatch, Page, Submission
from function_builder.queue.records import Found, Records
from function_builder.queue.states import Record
from function_builder.queue.streams import (
    CANCEL,
    JOB_SUBJECTS,
    JOBS,
    WAKE,
    streams,
)
from function_builder.queue.writer import RecordWriter
from function_builder.store import NotStored, Store, StoreError, StoreFull

_log = structlog.get_logger(__name__)


def body_key(tenant: str, build_id: str) -> str:
    """The name of a body in the store."""
    return f"bodies/{tenant}/{build_id}"


class JetStreamBuilds:
    """The builds of all tenants; see `port.Builds` for what each call does.

    Args:
        jetstream: a connection.
        store: bodies and logs of ended builds.
        history: seconds for which an ended build is kept.
        owner: this builder's name among all.
        replicas: on how many servers of the cluster each message is kept.
        max_queued: how many builds may be in the queue; 0: no limit.
        max_queued_of: how many of a tenant's builds may be in it; 0: no limit.
        lost_after: seconds without a heartbeat after which other builders start a builder's builds.
    """

    def __init__(
        self,
        jetstream: JetStream,
        store: Store,
        *,
        history: float,
        owner: str,
        replicas: int = 1,
        max_queued: int = 0,
        max_queued_of: Callable[[str], int] = lambda _: 0,
        lost_after: float = 30.0,
    ) -> None:
        self.jetstream = jetstream
        self.store = store
        self.records = Records(jetstream, history)
        self.logs = Logs(jetstream, store)
        self.callbacks = CallbackStream(jetstream.context, replicas=replicas, held=lost_after)
        self.events = Events(self.callbacks, self.records)
        self._listing = Listing(jetstream, self.records, history)
        self._claims = Claims(jetstream, self._find)
        self.clock = Clock()
        self.heartbeats = Heartbeats(jetstream, self.clock, owner=owner, lost_after=lost_after)
        self.owner = owner
        self.lost_after = lost_after
        self._replicas = replicas
        self._max_queued = max_queued
        self._max_queued_of = max_queued_of
        self._prepared = False
        self.writer = RecordWriter(self)

    async def prepare(self) -> None:
        """Create the streams that do not exist.

        Raises:
            Unavailable: JetStream did not create them.
        """
        own = self.records.config(self._replicas)
        for config in (*streams(self._replicas, self.lost_after), own):
            await self.jetstream.ensure_stream(config)
        self._prepared = True

    def unready_because(self) -> str:
        """Why no build can be queued now; empty if one can."""
        usable = self.jetstream.connected and self._prepared
        return "" if usable else "the queue cannot be reached"

    async def submit(self, submission: Submission, body: Reader) -> BuildInfo:
        """Keep a body and queue its build."""
        with _refusals():
            key = submission.idempotency
            if key and (known := await self._claims.known(submission.tenant, key)) is not None:
                return await self._with_position(known)
            await self._check_room(submission.tenant)
            name = body_key(submission.tenant, submission.id)
            await self.store.put(name, body)
            record = Record.of(submission)
            if submission.queue_timeout is not None:
                deadline = self.clock.now() + submission.queue_timeout
                record = dataclasses.replace(record, deadline=deadline)
            return await self._queue(record, key)

    async def retry(
        self,
        tenant: str,
        build_id: str,
        *,
        requester: str = "",
        idempotency: Idempotency | None = None,
    ) -> BuildInfo | None:
        """Queue a new build of a kept body."""
        with _refusals():
            found = await self._find(tenant, build_id)
            if found is None:
                return None
            old = found.record
            if idempotency and (known := await self._claims.known(tenant, idempotency)):
                return await self._with_position(known)
            if not old.info.state.ended:
                raise Refusal(409, "the build has not ended: cancel it first, or wait for its end")
            await self._check_room(tenant)
            created = time.time()
            record = Record.of(
                Submission(
                    id=new_id(created),
                    tenant=tenant,
                    created=created,
                    image=old.info.image,
                    repository=old.info.repository,
                    requester=requester,
                    trust_domain=old.trust_domain,
                    callback=old.callback,
                    headers=old.headers,
                ),
                retry_of=build_id,
            )
            try:
                new = body_key(tenant, record.info.id)
                await self.store.copy(body_key(tenant, build_id), new)
            except NotStored:
                raise Refusal(410, "the build's body is no longer stored: send it again") from None
            return await self._queue(record, idempotency)

    def record_start(self, tenant: str, info: BuildInfo) -> None:
        """Record the start of a synchronous build."""
        self.writer.record_start(tenant, info)

    def record_end(self, tenant: str, info: BuildInfo, log: Sequence[str]) -> None:
        """Record the end of a synchronous build, and its log."""
        self.writer.record_end(tenant, info, log)

    async def get(self, tenant: str, build_id: str) -> BuildInfo | None:
        """A build as it is now."""
        with _refusals():
            found = await self._find(tenant, build_id)
            if found is None:
                return None
            return await self._with_position(found.record)

    async def list(
        self,
        tenant: str,
        *,
        states: Collection[BuildState] = (),
        repository: str = "",
        limit: int = 50,
        cursor: str = "",
    ) -> Page:
        """Builds, newest first."""
        with _refusals():
            page = await self._listing.page(tenant, Wanted(states, repository, limit), cursor)
            settled = [await self._settled(found) for found in page.records]
            return Page([found.record.info for found in settled], page.cursor)

    async def follow(
        self, tenant: str, build_id: str, *, after: int = 0
    ) -> AsyncGenerator[LogBatch, None]:
        """Yield a log's lines after a line number, until the build has ended and all are read."""

        async def length() -> int | None:
            found = await self._find(tenant, build_id)
            if found is None:
                return 0
            return found.record.lines if found.record.info.state.ended else None

        with _refusals():
            if await self._find(tenant, build_id) is None:
                return
            async with contextlib.aclosing(
                self.logs.follow(tenant, build_id, after, length)
            ) as batches:
                async for batch in batches:
                    yield LogBatch(*batch)

    async def cancel(self, tenant: str, build_id: str) -> BuildInfo | None:
        """Cancel a build that is queued, or that runs on any replica."""
        with _refusals():
            while (found := await self._find(tenant, build_id)) is not None:
                record = found.record
                if record.info.state.ended:
                    return record.info
                error = "the build was cancelled"
                ended = record.fail(error, Reason.CANCELLED, time.time())
                try:
                    await self.records.update(found._replace(record=ended))
                except Changed:
                    continue
                await self.notify(f"{CANCEL}.{build_id}")
                if ended.lines is not None:
                    await self._settle_queued(ended)
                return ended.info
            return None

    async def notify(self, subject: str) -> None:
        """Send a message that no stream stores; it is lost if NATS is unreachable."""
        with contextlib.suppress(Exception):
            await self.jetstream.client.publish(subject, b"")

    async def finish_up(self, record: Record) -> None:
        """Store the callback of an ended build, and notify the followers of its log.

        It may be repeated, because a second time has no further effect.
        """
        await self.events.finished(record)
        await self.logs.notify_end(record.info.id)

    async def _settle_queued(self, record: Record) -> None:
        """Remove the job of a build that ended before it started.

        A worker that receives the job would do the same, so a failure is ignored.
        """
        with contextlib.suppress(Unavailable):
            await self.finish_up(record)
            if record.job:
                await self.jetstream.remove(JOBS, record.job)

    async def _check_room(self, tenant: str) -> None:
        """Refuse a build if the queue is full.

        Concurrent requests may exceed the limit by their number. JetStream's own limit is exact,
        but it is only checked after the body is stored.

        Raises:
            Refusal: 429.
        """
        if self._max_queued and await self.jetstream.count(JOBS) >= self._max_queued:
            raise LimitMet(
                "max_queued",
                f"The queue is full: it has {self._max_queued} builds, which is the limit of this "
                "builder (max_queued). Send the request again later.",
            )
        if limit := self._max_queued_of(tenant):
            subject = f"{JOB_SUBJECTS}.{tenant}"
            waiting = await self.jetstream.waiting(JOBS, subject)
            if waiting.get(subject, 0) >= limit:
                raise OverLimit("max_queued", limit, "Queued builds")

    async def _queue(self, record: Record, key: Idempotency | None) -> BuildInfo:
        tenant, build_id = record.tenant, record.info.id
        if key:
            known, claimed = await self._claims.claim(record, key)
            if claimed != build_id:
                body = body_key(tenant, build_id)
                if known is None:
                    # The same id, because the interrupted request may have stored its job.
                    await self.store.copy(body, body_key(tenant, claimed))
                with contextlib.suppress(StoreError):
                    await self.store.delete([body])
            if known is not None:
                return await self._with_position(known)
            build_id = claimed
            info = dataclasses.replace(record.info, id=build_id)
            record = dataclasses.replace(record, info=info)
        job = await self.jetstream.publish(
            f"{JOB_SUBJECTS}.{tenant}", record.to_value(), message_id=build_id
        )
        record = dataclasses.replace(record, job=job)
        # Then a worker was faster, and has made the record.
        with contextlib.suppress(Changed):
            await self.records.create(record)
        await self.events.queued(record)
        await self.notify(f"{WAKE}.{tenant}")
        return await self._with_position(record)

    async def _find(self, tenant: str, build_id: str) -> Found | None:
        if not is_id(build_id):
            return None
        found = await self.records.get(tenant, build_id)
        return None if found is None else await self._settled(found)

    async def _settled(self, found: Found) -> Found:
        """End a build that waited too long, or whose builder is lost, when its record is read."""
        record, now = found.record, self.clock.now()
        if record.expired(now):
            error = "no build slot was free within the time that the request allows: send it again"
            ended = record.fail(error, Reason.BUSY, now)
        elif await self.heartbeats.lost(record, now):
            ended = record.fail("the builder that ran it was lost", Reason.SERVICE, now)
            ended = dataclasses.replace(ended, lines=0)
        else:
            return found
        try:
            found = await self.records.update(found._replace(record=ended))
        except Changed:
            return await self.records.get(record.tenant, record.info.id) or found
        await self._settle_queued(ended)
        return found

    async def _with_position(self, record: Record) -> BuildInfo:
        """A build for its client, with its position among its tenant's waiting builds."""
        info = record.info
        if info.state is not BuildState.QUEUED or not record.job:
            return info
        with contextlib.suppress(Unavailable):
            position = await self.jetstream.place(JOBS, record.tenant, record.job)
            return dataclasses.replace(info, position=position)
        return info


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn errors of the queue and the store into refusals."""
    try:
        yield
    except (Full, StoreFull) as error:
        _log.warning("no build can be queued: there is no room", reason=str(error))
        raise Refusal(507, "the disk of the builds' queue is full: try again later") from error
    except (Unavailable, StoreError, Changed) as error:
        _log.warning("no build can be queued or read", reason=str(error))
        raise Refusal(503, "the queue of builds cannot be reached: try again") from error
