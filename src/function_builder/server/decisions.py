"""What the audit log contains: each decision about a request, and each change of the tenants."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol


class AuditEvent(StrEnum):
    """What was asked for; docs/audit.md describes each."""

    BUILD = "build"
    LIST = "builds.list"
    READ = "builds.read"
    LOG = "builds.log"
    CANCEL = "builds.cancel"
    RETRY = "builds.retry"
    USAGE = "usage"
    BUILDKITS = "buildkits.read"
    PRUNE = "buildkits.prune"
    SIGN_IN = "web.sign_in"
    TENANTS = "tenants.read"


class Decision(NamedTuple):
    """One decision.

    Attributes:
        tenant: who asked; empty if it is not proven.
        claimed: the tenant that the request named, by its header alone.
        credential: the id of what proved the tenant, never the credential.
        source: the client's address.
        request: the method and the path.
        image: the image to build.
        build: the build's id.
        why: the reason of a refusal; empty: it was allowed.
    """

    tenant: str = ""
    claimed: str = ""
    credential: str = ""
    source: str = ""
    request: str = ""
    image: str = ""
    build: str = ""
    why: str = ""


class TenantsRead(NamedTuple):
    """`tenants_file` was read, and was applied or refused.

    Attributes:
        file: its SHA-256, in hex.
        added: the new tenants.
        removed: the tenants that the file no longer has.
        changed: the tenants with another value.
        why: its faults; empty: it was applied.
    """

    file: str
    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    changed: Sequence[str] = ()
    why: str = ""


class Audit(Protocol):
    """Records decisions."""

    def note(self, event: AuditEvent, decision: Decision | TenantsRead) -> None:
        """Record one decision."""

    def close(self) -> None:
        """Close the log."""
