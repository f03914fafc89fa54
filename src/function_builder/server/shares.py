"""Choose the tenant that gets the next slot, by weighted fair shares of slot time.

Each tenant has a virtual time: the seconds that its builds have held slots, divided by its weight.
The waiting tenant with the least virtual time is the next. A tenant gets no credit for the time in
which it did not wait: its virtual time then starts at the least one of the waiting tenants. This is
start-time fair queueing (Goyal, Vin, Cheng 1996). A packet there has a known length. A build does
not, so a running build counts with its time so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

JUST_BEGUN_SECONDS: Final = 1.0
"""Added to the time of a running build, so that slots freed together go to several tenants."""


@dataclass(slots=True)
class _Account:
    """A tenant's virtual time at `since`, and the number of its slots."""

    virtual: float = 0.0
    since: float = 0.0
    running: int = 0


class Shares:
    """The virtual times of tenants.

    Args:
        weight: the weight of a tenant, more than 0.
        clock: seconds.
    """

    def __init__(
        self, weight: Callable[[str], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._weight = weight
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._now = 0.0
        """The least virtual time of the waiting tenants when the last slot was given."""

    def running(self, tenant: str) -> int:
        """The number of a tenant's slots."""
        account = self._accounts.get(tenant)
        return account.running if account else 0

    def running_by_tenant(self) -> dict[str, int]:
        """The number of each tenant's slots, including tenants that have none now."""
        return {tenant: account.running for tenant, account in self._accounts.items()}

    def first(self, tenants: Iterable[str]) -> str:
        """Choose the tenant that gets the next slot; of equal ones, the first in `tenants`.

        Args:
            tenants: those that wait and may have a slot, at least one.
        """
        starts = {tenant: self._start(tenant) for tenant in tenants}
        self._now = max(self._now, min(starts.values()))
        if len(starts) == 1:
            return next(iter(starts))
        return min(starts, key=lambda tenant: starts[tenant] + self._just_begun(tenant))

    def begin(self, tenant: str) -> None:
        """Count one more slot for a tenant."""
        account = self._settle(tenant)
        account.virtual = max(account.virtual, self._now)
        account.running += 1

    def end(self, tenant: str) -> None:
        """Count one slot less for a tenant."""
        self._settle(tenant).running -= 1

    def _start(self, tenant: str) -> float:
        return max(self._settle(tenant).virtual, self._now)

    def _just_begun(self, tenant: str) -> float:
        return JUST_BEGUN_SECONDS * self.running(tenant) / self._weight(tenant)

    def _settle(self, tenant: str) -> _Account:
        account, now = self._accounts.setdefault(tenant, _Account()), self._clock()
        account.virtual += account.running * (now - account.since) / self._weight(tenant)
        account.since = now
        return account
