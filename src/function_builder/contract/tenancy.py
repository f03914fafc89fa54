"""How a request names its tenant, and what a tenant's bearer token may do."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

TENANT_HEADER: Final = "X-Build-Tenant"


class Scope(StrEnum):
    """What a bearer token may do; a signature may do all."""

    READ = "read"
    """See the tenant's builds and their logs."""
    BUILD = "build"
    """Build, retry and cancel."""
