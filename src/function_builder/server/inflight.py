"""A tenant's `max_inflight` over all builders of one queue.

A builder's part is the number of the tenant's slots on this builder. A build that has a slot claims
one more before it starts, and returns it when it ends. If the tenant's next build starts here at
once, it keeps the claim. A tenant without `max_inflight` claims nothing.

While NATS does not answer, a builder counts alone: a tenant may then have `max_inflight` builds on
each builder. The alternative is to refuse its synchronous builds, which need no NATS otherwise.

Only a builder with tenants and a queue imports this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from function_builder.contract.tenancy import Limits
from function_builder.queue.port import ANSWER_SECONDS, Inflight, QueueUnavailable
from function_builder.server.places import Place
from function_builder.server.slots import Slots

REFRESH_SECONDS: Final = 5.0
"""Between two checks for a lost builder, because no message reports one."""

RETRY_SECONDS: Final = 1.0
"""Between two attempts to reach NATS."""

_UNLIMITED: Final = 1 << 30

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Part:
    """This builder's part of one tenant's `max_inflight`.

    Attributes:
        stored: what NATS has; None: it is not known.
        claiming: the places that wait for NATS to accept their claim.
        has_room: whether another builder has returned a claim since NATS was last asked.
        settling: the task that writes the part.
    """

    stored: int | None = 0
    claiming: list[Place] = field(default_factory=list)
    has_room: bool = False
    settling: asyncio.Task[None] | None = None


class SharedInflight:
    """This builder's parts; `Slots.shared`.

    Args:
        slots: this builder's.
        limits: a tenant's.
        store: the parts of all builders.

    Attributes:
        alone: whether this builder counts alone, because NATS does not answer.
    """

    def __init__(self, slots: Slots, limits: Callable[[str], Limits], store: Inflight) -> None:
        self.alone = False
        self._slots = slots
        self._limits = limits
        self._store = store
        self._parts: dict[str, _Part] = {}
        self._has_parts = asyncio.Event()

    def claim(self, place: Place) -> bool:
        """See `places.Shared`."""
        tenant = place.tenant
        if not self._limits(tenant).max_inflight:
            return True
        part = self._parts.setdefault(tenant, _Part())
        self._has_parts.set()
        if self.alone:
            part.stored = None
            return True
        if part.stored is not None and self._slots.running(tenant) <= part.stored:
            return True
        part.claiming.append(place)
        self._settle(tenant, part)
        return False

    def release(self, tenant: str) -> None:
        """See `places.Shared`."""
        part = self._parts.get(tenant)
        if part is not None and not self.alone:
            self._settle(tenant, part)

    async def run(self) -> None:
        """Share with the other builders until it is cancelled."""
        while True:
            try:
                await self._store.watch(self._on_change)
                break
            except QueueUnavailable as error:
                _log.debug("max_inflight of tenants cannot be watched yet", reason=str(error))
                await asyncio.sleep(RETRY_SECONDS)
        while True:
            await self._has_parts.wait()
            await asyncio.sleep(RETRY_SECONDS if self.alone else REFRESH_SECONDS)
            await self._refresh()

    async def close(self) -> None:
        """Return all parts, so that other builders need not wait for the end of a heartbeat."""
        self._slots.shared = None
        await self._refresh()

    async def _refresh(self) -> None:
        """Write all parts again, which NATS or another builder may have removed."""
        for tenant, part in list(self._parts.items()):
            part.stored = None
            # A cancellation of this task does not end the claim of a build.
            await asyncio.wait([self._settle(tenant, part)])
            if self.alone:
                return
            self._slots.unblock(tenant)

    def _on_change(self, tenant: str, others: int) -> None:
        part = self._parts.get(tenant)
        running = self._slots.running(tenant) - (0 if part is None else len(_claiming(part)))
        if others + running < self._limits(tenant).max_inflight:
            if part is not None:
                # The answer that there is none may be on its way.
                part.has_room = True
            self._slots.unblock(tenant)

    def _settle(self, tenant: str, part: _Part) -> asyncio.Task[None]:
        if part.settling is None:
            settling = self._write(tenant, part)
            part.settling = asyncio.create_task(settling, name=f"max_inflight of {tenant}")
        return part.settling

    async def _write(self, tenant: str, part: _Part) -> None:
        """Make NATS' number that of the slots here."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS) as patience:
                # A build that has ended since may have left its part to one that claims.
                self._answer(tenant, part, full=False)
                while part.stored != (wanted := self._slots.running(tenant)):
                    least = wanted - len(_claiming(part))
                    part.stored, part.has_room = None, False
                    part.stored = await self._store.claim(
                        tenant,
                        least=least,
                        wanted=wanted,
                        limit=self._limits(tenant).max_inflight or _UNLIMITED,
                    )
                    patience.reschedule(asyncio.get_running_loop().time() + ANSWER_SECONDS)
                    full = part.stored < wanted and not part.has_room
                    self._answer(tenant, part, full=full)
            self._end_alone()
        except (QueueUnavailable, TimeoutError) as error:
            self._start_alone(str(error) or "no answer")
        finally:
            part.settling = None
            if part.stored == 0 and not self._slots.waits_elsewhere(tenant):
                del self._parts[tenant]
                if not self._parts:
                    self._has_parts.clear()

    def _answer(self, tenant: str, part: _Part, *, full: bool) -> None:
        """Confirm as many claiming places as NATS has accepted; reject the others."""
        claiming = _claiming(part)
        running = self._slots.running(tenant) - len(claiming)
        free = max(0, (part.stored or 0) - running)
        part.claiming = [] if full else claiming[free:]
        for place in claiming[:free]:
            self._slots.confirm(place)
        for place in claiming[free:] if full else ():
            self._slots.reject(place)

    def _start_alone(self, reason: str) -> None:
        if not self.alone:
            _log.warning(
                "NATS does not answer: max_inflight of tenants holds for this builder alone",
                reason=reason,
            )
        self.alone = True
        for tenant, part in list(self._parts.items()):
            claiming, part.claiming = _claiming(part), []
            for place in claiming:
                self._slots.confirm(place)
            self._slots.unblock(tenant)

    def _end_alone(self) -> None:
        if self.alone:
            _log.info("max_inflight of tenants holds over all builders again")
        self.alone = False


def _claiming(part: _Part) -> list[Place]:
    """The places that still wait; the clients of the others have disconnected."""
    return [place for place in part.claiming if place.claiming]
