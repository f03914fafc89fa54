"""The queue of a builder: its connection, its worker, and the queued builds that it runs.

Importing this imports nats-py and obstore, so only a builder with `nats_url` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

import structlog

from function_builder.builds.build import Build
from function_builder.builds.phases import BuildPhase, Measures
from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import Refusal
from function_builder.errors import StartError
from function_builder.policy.checks import checked
from function_builder.queue.access import Access
from function_builder.queue.builds import JetStreamBuilds
from function_builder.queue.connection import Unavailable
from function_builder.queue.inflight import StoredInflight
from function_builder.queue.jetstream import JetStream
from function_builder.queue.marks import StoredMarks
from function_builder.queue.offers import StoredOffers
from function_builder.queue.retention import Retention
from function_builder.queue.sign_outs import StoredSignOuts
from function_builder.queue.states import Record
from function_builder.queue.usage import StoredUsage
from function_builder.queue.worker import Worker
from function_builder.server import keys
from function_builder.server.claims import own_claim
from function_builder.server.inflight import SharedInflight
from function_builder.server.outcomes import note_end
from function_builder.server.places import Closed, Place
from function_builder.server.queue_metrics import QueueMetrics
from function_builder.server.sending import sending_callbacks
from function_builder.server.service import Phase, Service, Usage
from function_builder.server.spool import Spool
from function_builder.settings import Settings
from function_builder.store import Store, StoreError

_LAST_RECORDS_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0

_START_SECONDS: Final = 5.0
"""How long the start waits for NATS. A refusal within this time ends the builder with one line."""

_log = structlog.get_logger(__name__)


class QueuedBuilds:
    """Runs builds of the queue on this builder; the worker's `Runner`.

    Args:
        service: what the endpoints share; its slots are for synchronous and queued builds.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._spools: dict[str, Spool] = {}

    def ready(self) -> bool:
        """Whether a build may start now."""
        service = self._service
        return service.phase is Phase.SERVING and service.pools.shared.reachable

    def turn(self, tenant: str) -> AbstractContextManager[Place]:
        """Wait for a slot for a tenant; the end of the block frees the slot."""
        return self._service.slots.turn(tenant)

    def max_inflight(self, tenant: str) -> int:
        """How many of a tenant's queued builds may run on all builders; 0: no limit."""
        tenants = self._service.tenants
        return 0 if tenants is None else tenants.limits(tenant).max_inflight

    async def until_slot(self, place: Place) -> bool:
        """Wait until a place has its slot; return False if the builder ends before."""
        try:
            async for _ in place.positions():
                pass
        except Closed:
            return False
        return True

    async def prepare(self, record: Record, body: AsyncIterator[bytes]) -> Build:
        """Read a stored body, check it again, and return its build.

        Raises:
            Refusal: it cannot be built, or its payload secret was replaced.
        """
        settings = self._tenant_settings(record)
        measures = Measures(time.time_ns())
        spool = self._spools[record.info.id] = Spool(self._service.space)
        try:
            async for piece in body:
                await asyncio.to_thread(spool.append, [piece])
            measures.end(BuildPhase.UPLOAD)
            key = keys.unsealing_key(settings)
            async with self._service.large_checks:
                request = await asyncio.to_thread(
                    checked, spool, settings, key, record.trust_domain, record.tenant
                )
        except BaseException:
            self._spools.pop(record.info.id).close()
            raise
        measures.end(BuildPhase.CHECK)
        return Build(request, time.monotonic(), record.info.id, record.headers, measures)

    async def run(self, build: Build, place: Place) -> None:
        """Run a build to its end; if this is cancelled, the build ends as cancelled."""
        await self._service.run(build, place)

    def release(self, build: Build) -> None:
        """Note the end of a build, and release its resources."""
        note_end(self._service, build)
        build.release()
        self._spools.pop(build.id).close()

    def note_redelivery(self) -> None:
        """Count a job that JetStream has redelivered."""
        self._service.metrics.redeliveries.inc()

    def _tenant_settings(self, record: Record) -> Settings:
        """The settings of a record's tenant, if the tenant may still build.

        Raises:
            Refusal: it may not.
        """
        service = self._service
        tenants, tenant = service.tenants, record.tenant
        if tenants is None:
            claim = own_claim(service.settings) if tenant == DEFAULT_TENANT else None
        else:
            claim = tenants.named(tenant)
        if claim is None:
            raise Refusal(401, "the tenant that sent the request has been removed")
        if record.trust_domain not in claim.domains:
            raise Refusal(401, "the payload secret that signed the request has been replaced")
        return claim.settings


@contextlib.asynccontextmanager
async def queue_of(service: Service) -> AsyncIterator[None]:
    """Set `service.builds` to the queue of `nats_url`, and run its worker.

    NATS may start later than this builder. Until then no build can be queued.

    Raises:
        StartError: NATS refuses this builder, or its store cannot be used.
    """
    settings, metrics = service.settings, QueueMetrics(service.metrics)
    async with (
        _store(settings, metrics.note_store) as store,
        _jetstream(settings, metrics.note_nats) as jetstream,
    ):
        builds = JetStreamBuilds(
            jetstream,
            store,
            history=settings.history,
            owner=_name(),
            replicas=settings.nats_replicas,
            max_queued=settings.max_queued,
            max_queued_of=partial(_max_queued, service),
            lost_after=settings.lost_after,
        )
        usage = service.usage
        service.builder.offers = offers = StoredOffers(
            jetstream, settings.nats_replicas, service.pools.each_daemon
        )
        inflight = _shared_inflight(service, builds, jetstream)
        service.quotas.marks = StoredMarks(jetstream, settings.nats_replicas)
        if settings.web:
            service.sign_outs = StoredSignOuts(jetstream, settings.nats_replicas)
        if usage is not None:
            usage.store = StoredUsage(jetstream, builds.owner, settings.nats_replicas)
        worker = Worker(builds, QueuedBuilds(service), keep_bodies=bool(settings.keep_bodies))
        opening = asyncio.create_task(_open(builds), name="connection to NATS")
        tasks = [opening]
        try:
            await _wait_for(opening)
            for name, work in (
                *_work(service, builds, worker, inflight),
                ("eras of BuildKits", offers.watch),
            ):
                tasks.append(asyncio.create_task(_after(opening, work), name=name))
            for task in tasks:
                task.add_done_callback(_log_fault)
            service.builds, service.worker, service.slots.shared = builds, worker, inflight
            metrics.show(jetstream)
            now = builds.clock.now
            async with sending_callbacks(service, builds.callbacks, builds.events.reported, now):
                yield
        finally:
            await worker.drain()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if inflight is not None:
                await inflight.close()
            await builds.writer.close(_LAST_RECORDS_SECONDS)
            if usage is not None:
                await _last_usage(usage)


def _max_queued(service: Service, tenant: str) -> int:
    return 0 if service.tenants is None else service.tenants.limits(tenant).max_queued


def _shared_inflight(
    service: Service, builds: JetStreamBuilds, jetstream: JetStream
) -> SharedInflight | None:
    if service.tenants is None:
        return None
    replicas = service.settings.nats_replicas
    store = StoredInflight(jetstream, builds.heartbeats, builds.owner, replicas)
    return SharedInflight(service.slots, service.tenants.limits, store)


_Work = Callable[[], Awaitable[None]]


def _work(
    service: Service,
    builds: JetStreamBuilds,
    worker: Worker[Place],
    inflight: SharedInflight | None,
) -> Iterator[tuple[str, _Work]]:
    settings = service.settings
    yield "queued builds", worker.run
    retention = Retention(
        builds,
        history=settings.history,
        keep_bodies=settings.keep_bodies,
        max_bytes=settings.max_store_bytes,
    )
    yield "retention", retention.run
    if service.usage is not None:
        yield "usage of tenants", service.usage.write_changes
    if inflight is not None:
        yield "max_inflight of tenants", inflight.run


async def _last_usage(usage: Usage) -> None:
    try:
        async with asyncio.timeout(_LAST_RECORDS_SECONDS):
            await usage.flush()
    except (Unavailable, TimeoutError):
        _log.warning("the last usage of tenants was not written")


async def _open(builds: JetStreamBuilds) -> None:
    """Connect and create the streams, without a timeout.

    Raises:
        Rejected: NATS refuses this builder.
    """
    await builds.jetstream.connect()
    while True:
        try:
            await builds.prepare()
        except Unavailable as error:
            _log.warning("the streams of the queue cannot be created yet", reason=str(error))
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


async def _wait_for(opening: asyncio.Task[None]) -> None:
    """Wait some seconds for the queue; without it, the builder starts anyway.

    Raises:
        StartError: NATS refuses this builder.
    """
    await asyncio.wait([opening], timeout=_START_SECONDS)
    if not opening.done():
        _log.warning("NATS does not answer yet: no build can be queued until it does")
    elif error := opening.exception():
        raise StartError(f"nats_url cannot be used: {error}") from error


async def _after(opening: asyncio.Task[None], work: _Work) -> None:
    await asyncio.wait([opening])
    if opening.exception() is None:
        await work()


@contextlib.asynccontextmanager
async def _store(settings: Settings, failed: Callable[[bool], None]) -> AsyncIterator[Store]:
    try:
        store = Store(settings.store_url, failed=failed)
        await store.check()
    except StoreError as error:
        raise StartError(f"store_url cannot be used: {error}") from error
    try:
        yield store
    finally:
        store.close()


@contextlib.asynccontextmanager
async def _jetstream(
    settings: Settings, failed: Callable[[bool], None]
) -> AsyncIterator[JetStream]:
    access = Access(
        url=settings.nats_url,
        credentials=settings.nats_credentials_file,
        nkey_seed=settings.nats_nkey_seed_file,
        ca=settings.nats_ca_file,
        cert=settings.nats_cert_file,
        key=settings.nats_key_file,
    )
    jetstream = JetStream(access, failed=failed)
    try:
        yield jetstream
    finally:
        await jetstream.close()


def _log_fault(working: asyncio.Task[None]) -> None:
    if not working.cancelled() and (fault := working.exception()) is not None:
        _log.error("a part of the queue has ended", part=working.get_name(), exc_info=fault)


def _name() -> str:
    """This process's name among all builders; a restart changes it."""
    host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())
    return f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
