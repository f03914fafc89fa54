"""The queue of a builder: its connection, its worker, and its other tasks.

Importing this imports nats-py and obstore, so only a builder with `nats_url` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Final

import structlog

from function_builder.errors import StartError
from function_builder.queue.access import Access
from function_builder.queue.builds import JetStreamBuilds
from function_builder.queue.connection import Unavailable
from function_builder.queue.inflight import StoredInflight
from function_builder.queue.jetstream import JetStream
from function_builder.queue.marks import StoredMarks
from function_builder.queue.offers import StoredOffers
from function_builder.queue.retention import Retention
from function_builder.queue.sign_outs import StoredSignOuts
from function_builder.queue.usage import StoredUsage
from function_builder.queue.worker import Worker
from function_builder.server.inflight import SharedInflight
from function_builder.server.places import Place
from function_builder.server.queue_metrics import QueueMetrics
from function_builder.server.queued_builds import QueuedBuilds
from function_builder.server.sending import sending_callbacks
from function_builder.server.service import Service, Usage
from function_builder.settings import Settings
from function_builder.store import Store, StoreError

_LAST_RECORDS_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0

_START_SECONDS: Final = 5.0
"""How long the start waits for NATS. A refusal within this time ends the builder with one line."""

_log = structlog.get_logger(__name__)


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
            _, left = await asyncio.wait(tasks, timeout=_LAST_RECORDS_SECONDS)
            for task in left:
                _log.error("a part of the queue does not end", part=task.get_name())
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
