"""Which tenant has the next slot: weighted fair shares of slot time. Pure: time comes from a clock.

Each tenant has a virtual time: the seconds that its builds have held slots, divided by its weight.
Of the tenants that wait, the one that is furthest behind is the next. A tenant that did not wait is
not owed the time that others had meanwhile: it begins where those that wait are. This is start-time
fair queueing (Goyal, Vin, Cheng 1996), whose packets have a known length. A build's length is known
at its end, so a build that runs counts with what it has had until now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

JUST_BEGUN_SECONDS: Final = 1.0
"""What a running build counts beside its time: slots freed together go to several tenants."""


@dataclass(slots=True)
class _Account:
    """One tenant's: its virtual time at `since`, and how many slots it has."""

    virtual: float = 0.0
    since: float = 0.0
    running: int = 0


class Shares:
    """The virtual times of tenants.

    Args:
        weight: of a tenant, more than 0.
        clock: seconds.
    """

    def __init__(
        self, weight: Callable[[str], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._weight = weight
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._now = 0.0
        """The least virtual time of those that waited when a slot was given."""

    def running(self, tenant: str) -> int:
        """How many slots a tenant has."""
        account = self._accounts.get(tenant)
        return account.running if account else 0

    def running_by_tenant(self) -> dict[str, int]:
        """How many slots each tenant has; 0 for one that had some."""
        return {tenant: account.running for tenant, account in self._accounts.items()}

    def first(self, tenants: Iterable[str]) -> str:
        """The tenant that has the next slot; of equal ones, the first that is named.

        Args:
            tenants: all that wait and may have a slot, at least one.
        """
        starts = {tenant: self._start(tenant) for tenant in tenants}
        self._now = max(self._now, min(starts.values()))
        if len(starts) == 1:
            return next(iter(starts))
        return min(starts, key=lambda tenant: starts[tenant] + self._just_begun(tenant))

    def begin(self, tenant: str) -> None:
        """A tenant has one slot more."""
        account = self._settle(tenant)
        account.virtual = max(account.virtual, self._now)
        account.running += 1

    def end(self, tenant: str) -> None:
        """A tenant has one slot less."""
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
