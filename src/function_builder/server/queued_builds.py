"""Runs builds of the queue on this builder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager

from function_builder.builds.build import Build
from function_builder.builds.phases import BuildPhase, Measures
from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import Refusal
from function_builder.policy.checks import checked
from function_builder.queue.states import Record
from function_builder.server import keys
from function_builder.server.claims import own_claim
from function_builder.server.outcomes import note_end
from function_builder.server.places import Closed, Place
from function_builder.server.service import Phase, Service
from function_builder.server.spool import Spool
from function_builder.settings import Settings


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
