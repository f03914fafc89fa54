"""How a request names its tenant, and what a tenant's bearer token may do."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

TENANT_HEADER: Final = "X-Build-Tenant"


class Scope(StrEnum):
    """What a bearer token may do; a signature may do all."""

    READ = "read"
    """See the tenant's builds and their logs."""
    BUILD = "build"
    """Build, retry and cancel."""


class Limits(NamedTuple):
    """A tenant's part of a builder.

    Attributes:
        weight: its share of full slots, beside those of the others.
        max_inflight: the most builds at a time; 0: as many as there are slots.
        max_queue: how many of its requests may wait; None: as many as the builder allows.
        builds_per_hour: how many builds it may begin in an hour; 0: no limit.
    """

    weight: float = 1.0
    max_inflight: int = 0
    max_queue: int | None = None
    builds_per_hour: int = 0


NO_LIMITS: Final = Limits()
