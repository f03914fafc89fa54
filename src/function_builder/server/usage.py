"""Count the usage of this builder's tenants, for metrics and for GET /usage.

Only a builder with `tenants_file` imports this module.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from function_builder.builds.build import Build
from function_builder.builds.phases import BuildPhase
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.tenancy import LimitMet
from function_builder.contract.usage import KEPT_DAYS, Usage, UsageRows, parse_day
from function_builder.queue.port import QueueUnavailable, UsageStore
from function_builder.server.prometheus import Metrics
from function_builder.server.reading import Caller

if TYPE_CHECKING:
    from function_builder.server.slots import Slots

FLUSH_SECONDS: Final = 1.0
"""Seconds between two writes; a killed builder loses what it counted since the last one."""

_LIMITS: Final = ("max_inflight", "max_queue", "max_queued", "builds_per_hour", "queue_timeout")
"""The values of a label: the `setting` of each `LimitMet` whose tenant is proven."""

_RETRY_SECONDS: Final = 5.0

_log = structlog.get_logger(__name__)


class TenantsUsage:
    """The usage of all tenants.

    Args:
        metrics: this builder's.
        slots: this builder's.
        clock: seconds since the epoch.

    Attributes:
        store: keeps the usage over restarts; None: it counts from the start of the process.
    """

    def __init__(
        self, metrics: Metrics, slots: Slots, clock: Callable[[], float] = time.time
    ) -> None:
        self.store: UsageStore | None = None
        self._metrics = metrics
        self._slots = slots
        self._clock = clock
        self._since = datetime.fromtimestamp(clock(), UTC)
        self._rows: dict[tuple[date, str], Usage] = {}
        self._dirty: set[tuple[date, str]] = set()
        self._changed = asyncio.Event()
        metrics.register_tenants()
        metrics.refreshers.append(self._refresh)

    def count_received(self, tenant: str, size: int) -> None:
        """Count a body whose tenant is proven."""
        self._row(tenant).received_bytes += size
        for limit in _LIMITS:
            # Starts at 0, so that the first value is an increase.
            self._metrics.tenant_limited.labels(tenant, limit)
        self._metrics.tenant_received_bytes.labels(tenant).inc(size)

    def count_build(self, build: Build) -> None:
        """Count a build that has ended."""
        assert build.result is not None
        tenant, outcome = build.request.tenant, build.outcome.value
        waited = build.measures.spans.get(BuildPhase.WAIT)
        seconds = 0.0
        if waited is not None:
            ended = build.measures.accepted / 1e9 + build.result.duration
            seconds = max(0.0, ended - waited[1] / 1e9)
        row = self._row(tenant)
        row.builds[outcome] += 1
        row.seconds += seconds
        self._metrics.tenant_builds.labels(tenant, outcome).inc()
        self._metrics.tenant_seconds.labels(tenant).inc(seconds)

    def count_limited(self, tenant: str, refusal: Refusal) -> None:
        """Count a request that was refused, if it met a limit."""
        if isinstance(refusal, LimitMet):
            self._metrics.tenant_limited.labels(tenant, refusal.setting).inc()

    async def write_changes(self) -> None:
        """Write changes to the store until it is cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except QueueUnavailable as error:
                _log.debug("the usage of tenants cannot be written yet", reason=str(error))
                await asyncio.sleep(_RETRY_SECONDS)

    async def flush(self) -> None:
        """Write the changes to the store now.

        Raises:
            QueueUnavailable: something is not written.
        """
        self._changed.clear()
        if self.store is None or not self._dirty:
            return
        today = self._today()
        try:
            await self.store.prepare()
            for key in sorted(self._dirty):
                self._dirty.discard(key)
                try:
                    await self.store.write(*key, self._rows[key])
                except QueueUnavailable:
                    self._dirty.add(key)
                    raise
                # If the clock is set back, yesterday's numbers are needed again.
                if key[0] < today - timedelta(days=1):
                    del self._rows[key]
        except QueueUnavailable:
            self._changed.set()
            raise

    async def document(self, query: Mapping[str, str], caller: Caller) -> dict[str, object]:
        """The usage that a caller may see, in the API's form.

        Raises:
            Refusal: 400, the query is wrong; 403; 503, the store does not answer.
        """
        first, last = self._days(query)
        wanted = query.get("tenant", "")
        if not caller.is_operator:
            if wanted not in ("", caller.tenant):
                raise Refusal(403, "tenant: a tenant sees its own usage alone")
            wanted = caller.tenant
        rows = await self._read(first, last, wanted)
        document: dict[str, object] = {
            "from": first.isoformat(),
            "to": last.isoformat(),
            "usage": [
                {"day": day.isoformat(), "tenant": tenant, **rows[day, tenant].to_document()}
                for day, tenant in sorted(rows)
            ],
        }
        if self.store is None:
            document["since"] = self._since.isoformat(timespec="seconds").replace("+00:00", "Z")
        return document

    async def _read(self, first: date, last: date, tenant: str) -> UsageRows:
        if self.store is None:
            return {
                key: usage
                for key, usage in self._rows.items()
                if first <= key[0] <= last and tenant in ("", key[1])
            }
        try:
            await self.flush()
            await self.store.prepare()
            return await self.store.read(first, last, tenant)
        except QueueUnavailable:
            raise Refusal(503, "the queue, which keeps the usage, cannot be reached") from None

    def _days(self, query: Mapping[str, str]) -> tuple[date, date]:
        today = self._today()
        days = {"from": today.replace(day=1), "to": today}
        for name in days:
            if (text := query.get(name)) is not None:
                try:
                    days[name] = parse_day(text)
                except ValueError:
                    raise Refusal(
                        400, f"{name}: {shown(text)} is not a day: write it as 2026-11-30"
                    ) from None
        if days["to"] < days["from"]:
            raise Refusal(400, "to is before from")
        return days["from"], days["to"]

    def _row(self, tenant: str) -> Usage:
        key = self._today(), tenant
        if key not in self._rows:
            oldest = key[0] - timedelta(days=KEPT_DAYS)
            for old in [old for old in self._rows if old[0] < oldest]:
                del self._rows[old]
        self._dirty.add(key)
        self._changed.set()
        return self._rows.setdefault(key, Usage())

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock(), UTC).date()

    async def _refresh(self) -> None:
        metrics = self._metrics
        for gauge, numbers in (
            (metrics.tenant_waiting, self._slots.waiting_by_tenant()),
            (metrics.tenant_slots, self._slots.taken_by_tenant()),
        ):
            gauge.clear()
            for tenant, number in numbers.items():
                gauge.labels(tenant).set(number)
