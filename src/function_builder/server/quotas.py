"""How many builds a tenant may begin in an hour, on this builder since its start.

The generic cell rate algorithm: each build moves a tenant's mark ahead by its part of an hour, and
the mark may lie an hour ahead of now at most. So a tenant that was quiet may use its whole hour at
once, and then has its builds one by one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from function_builder.contract.errors import BUSY, Refusal
from function_builder.contract.tenancy import Limits
from function_builder.server.slots import NoSlot

_WINDOW: Final = 3600.0


class OverQuota(NoSlot):
    """A tenant has begun as many builds as it may.

    The header fields are those of draft-ietf-httpapi-ratelimit-headers.
    """

    setting = "builds_per_hour"

    def __init__(self, quota: int, seconds: int) -> None:
        text = f"{BUSY} Builds in an hour: {quota}. The next one may begin in {seconds} s."
        Refusal.__init__(self, 429, text)
        self.headers = {
            "Retry-After": str(seconds),
            "RateLimit-Policy": f'"builds";q={quota};w={_WINDOW:.0f}',
            "RateLimit": f'"builds";r=0;t={seconds}',
        }


class Quotas:
    """The builds of each tenant.

    Args:
        limits: a tenant's.
        clock: seconds.
    """

    def __init__(
        self, limits: Callable[[str], Limits], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._marks: dict[str, float] = {}

    def take(self, tenant: str) -> None:
        """Count a build that is about to begin, or to wait.

        Raises:
            OverQuota: the tenant has had as many as it may.
        """
        quota = self._limits(tenant).builds_per_hour
        if not quota:
            return
        now = self._clock()
        mark = max(self._marks.get(tenant, now), now) + _WINDOW / quota
        # Sums of parts of an hour are not exact.
        if (seconds := mark - now - _WINDOW) > 1e-6:
            raise OverQuota(quota, max(1, math.ceil(seconds)))
        self._marks[tenant] = mark
