"""How many builds a tenant may start in an hour: on all builders, or on this one without a queue.

This is the generic cell rate algorithm. Each build moves the tenant's mark ahead by its share of an
hour. The mark may be at most an hour ahead of now. So a tenant that was idle may start all builds
of an hour at once. After that, it may start one in each share of an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from function_builder.contract.errors import BUSY, Refusal
from function_builder.contract.tenancy import LimitMet, Limits
from function_builder.queue.port import ANSWER_SECONDS, Marks, QueueUnavailable

_WINDOW: Final = 3600.0

_ROUNDING: Final = 1e-3
"""Seconds: more than the rounding errors of 10,000 additions to a time since the epoch."""


class OverQuota(LimitMet):
    """A tenant has started all builds that it may start in an hour.

    The header fields are those of draft-ietf-httpapi-ratelimit-headers.
    """

    def __init__(self, quota: int, seconds: int) -> None:
        text = f"{BUSY} Builds in an hour: {quota}. The next one may begin in {seconds} s."
        super().__init__("builds_per_hour", text)
        self.headers = {
            "Retry-After": str(seconds),
            "RateLimit-Policy": f'"builds";q={quota};w={_WINDOW:.0f}',
            "RateLimit": f'"builds";r=0;t={seconds}',
        }


class Quotas:
    """Counts the builds of each tenant.

    Args:
        limits: the limits of a tenant.
        clock: seconds since the epoch.

    Attributes:
        marks: shared by all builders; None: this builder counts alone.
    """

    def __init__(
        self, limits: Callable[[str], Limits], clock: Callable[[], float] = time.time
    ) -> None:
        self.marks: Marks | None = None
        self._limits = limits
        self._clock = clock
        self._own: dict[str, float] = {}

    async def count(self, tenant: str) -> None:
        """Count a build that is about to start or to wait.

        While the queue cannot be reached, this builder counts alone.

        Raises:
            OverQuota: the tenant has used its builds of this hour.
        """
        if quota := self._limits(tenant).builds_per_hour:
            await self._move(tenant, partial(_next_mark, now=self._clock(), quota=quota))

    @contextlib.asynccontextmanager
    async def counted(self, tenant: str) -> AsyncIterator[None]:
        """Count a build that the block queues; if the block refuses it, it does not count.

        Raises:
            OverQuota: as `count`.
        """
        await self.count(tenant)
        try:
            yield
        except Refusal:
            if quota := self._limits(tenant).builds_per_hour:
                await self._move(tenant, lambda mark: mark - _WINDOW / quota)
            raise

    async def _move(self, tenant: str, move: Callable[[float], float]) -> None:
        if self.marks is not None:
            with contextlib.suppress(QueueUnavailable, TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    self._own[tenant] = await self.marks.move(tenant, move)
                return
        self._own[tenant] = move(self._own.get(tenant, 0.0))


def _next_mark(mark: float, *, now: float, quota: int) -> float:
    """Where a tenant's mark is after one more build.

    Raises:
        OverQuota: the mark would be more than an hour ahead.
    """
    moved = max(mark, now) + _WINDOW / quota
    # Floating-point sums are not exact.
    if (seconds := moved - now - _WINDOW) > _ROUNDING:
        raise OverQuota(quota, max(1, math.ceil(seconds)))
    return moved
