"""How a request names its tenant, and what a tenant's bearer token may do."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from function_builder.contract.errors import BUSY, Refusal

TENANT_HEADER: Final = "X-Build-Tenant"


class Scope(StrEnum):
    """What a bearer token may do; a signature may do all."""

    READ = "read"
    """See the tenant's builds and their logs."""
    BUILD = "build"
    """Build, retry and cancel."""


ALL_SCOPES: Final = frozenset(Scope)


class Limits(NamedTuple):
    """A tenant's part of a builder.

    Attributes:
        weight: its share of full slots, beside those of the others.
        max_inflight: the most builds at a time; 0: as many as there are slots.
        max_queue: how many of its requests may wait; None: as many as the builder allows.
        max_queued: how many of its builds may be in the queue; 0: as many as the builder allows.
        builds_per_hour: how many builds it may start in an hour; 0: no limit.
    """

    weight: float = 1.0
    max_inflight: int = 0
    max_queue: int | None = None
    builds_per_hour: int = 0
    max_queued: int = 0


class LimitMet(Refusal):
    """A request met a limit of its tenant or of the builder: 429.

    Attributes:
        setting: which limit, for the log and the metrics.
    """

    setting: str

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(429, reason)
        self.setting = setting


class OverLimit(LimitMet):
    """A tenant has as many builds at a time as it may.

    The header fields are those of draft-ietf-httpapi-ratelimit-headers; without a window, because
    a build that ends makes room.
    """

    def __init__(self, setting: str, limit: int, text: str) -> None:
        super().__init__(setting, f"{BUSY} {text}: {limit}. Send the request again later.")
        self.headers = rate_limit(setting, limit)


def rate_limit(setting: str, limit: int) -> Mapping[str, str]:
    """The fields of an answer for a limit that is met."""
    return {
        "RateLimit-Policy": f'"{setting}";q={limit}',
        "RateLimit": f'"{setting}";r=0',
    }


NO_LIMITS: Final = Limits()
