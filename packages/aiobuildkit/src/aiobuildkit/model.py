"""The values of the client's API, without protobuf.

The names are BuildKit's (`client/graph.go`, `client/diskusage.go`,
`client/workers.go`). Instants are nanoseconds since the Unix epoch, UTC, or None where
BuildKit sent none; sizes are bytes; digests read `sha256:<hex>`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypedDict

from aiobuildkit.errors import SourceLocation

__all__ = [
    "AttrCondition",
    "AttrConstraint",
    "BuildKitVersion",
    "CacheEntry",
    "Exporter",
    "Platform",
    "PruneOptions",
    "SolveResult",
    "SourceAction",
    "SourceMatch",
    "SourceRule",
    "SourceUpdate",
    "StatusEvent",
    "Timeouts",
    "UsageRecord",
    "Vertex",
    "VertexLog",
    "VertexStatus",
    "VertexWarning",
    "WorkerInfo",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How many seconds a client waits.

    Attributes:
        connect: for the connection, TLS, and the daemon's first HTTP/2 frame, together.
        silence: for any data from the daemon during a solve; then the daemon is lost. BuildKit
            checks the session's health every 5 s.
        status: for another status event after the solve has ended; then the events end.
        first_status: the same, if the solve ended before its first event. BuildKit may not have
            begun it.
        close: for sending the last bytes of a connection, such as a cancellation.
    """

    connect: float = 10
    silence: float = 60
    status: float = 5
    first_status: float = 1
    close: float = 1


class PruneOptions(TypedDict, total=False):
    """What `Client.prune` removes: everything that is not in use, unless limited here.

    Attributes:
        filters: only records that match, such as `type==source.local`.
        all: also internal records, such as frontends' images.
        keep_duration: seconds for which unused records are kept.
        reserved_space: bytes that are always kept.
        max_used_space: bytes above which records are removed.
        min_free_space: bytes that should be free on the disk.
    """

    filters: Iterable[str]
    all: bool
    keep_duration: float
    reserved_space: int
    max_used_space: int
    min_free_space: int


@dataclass(frozen=True, slots=True)
class Exporter:
    """An exporter of the result: `Exporter("image", {"name": "r/a:b", "push": "true"})`."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A cache to import or export: `CacheEntry("registry", {"ref": "r/a:cache"})`."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)


class SourceAction(StrEnum):
    """What a rule of a source policy does with a source that it matches."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    CONVERT = "CONVERT"
    """BuildKit reads another source instead, and looks at all rules again for it."""


class SourceMatch(StrEnum):
    """How a rule's identifier matches that of a source; equal ones always match."""

    WILDCARD = "WILDCARD"
    """`*` is any text."""
    EXACT = "EXACT"
    REGEX = "REGEX"
    """A regular expression (RE2), found anywhere in the identifier."""


class AttrCondition(StrEnum):
    """How a source's attribute compares with a value."""

    EQUAL = "EQUAL"
    NOTEQUAL = "NOTEQUAL"
    MATCHES = "MATCHES"
    """The value is a regular expression (RE2)."""


@dataclass(frozen=True, slots=True)
class AttrConstraint:
    """A condition of an attribute of a source (`solver/pb/attr.go`); an absent one is empty."""

    key: str
    value: str
    condition: AttrCondition = AttrCondition.EQUAL


@dataclass(frozen=True, slots=True)
class SourceUpdate:
    """What a CONVERT makes of a source.

    Attributes:
        identifier: the new one, in which `${1}` is the first group or `*` that matched; empty:
            the rule's own.
        attrs: attributes to set.
    """

    identifier: str = ""
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRule:
    """One rule of a source policy (BuildKit's `sourcepolicy/pb/policy.proto`).

    A source may be read if the last ALLOW or DENY that matches it is not a DENY.

    Attributes:
        action: what is done with a source that matches.
        identifier: what sources match, such as `docker-image://docker.io/library/*`.
        match: how.
        constraints: conditions that must hold too.
        updates: with CONVERT alone, and there required.
    """

    action: SourceAction
    identifier: str
    match: SourceMatch = SourceMatch.WILDCARD
    constraints: Sequence[AttrConstraint] = ()
    updates: SourceUpdate | None = None


@dataclass(frozen=True, slots=True)
class Vertex:
    """One step of the build graph, in its state when the event was sent.

    Each vertex has several events: announced, started, completed. `error` is empty unless
    it failed; a vertex that was cancelled with its build fails too.
    """

    digest: str
    name: str
    inputs: tuple[str, ...] = ()
    cached: bool = False
    started: int | None = None
    completed: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class VertexStatus:
    """Progress of a part of a vertex, such as one layer's download.

    `current` and `total` are bytes (or items, as the vertex defines); total is 0 when
    unknown.
    """

    id: str
    vertex: str
    name: str = ""
    current: int = 0
    total: int = 0
    timestamp: int | None = None
    started: int | None = None
    completed: int | None = None


@dataclass(frozen=True, slots=True)
class VertexLog:
    """A piece of a step's output: raw bytes, cut anywhere. stream: 1 stdout, 2 stderr."""

    vertex: str
    stream: int
    data: bytes
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class VertexWarning:
    """A frontend's warning, such as one of the Dockerfile's lint rules."""

    vertex: str
    level: int
    short: str
    detail: tuple[str, ...] = ()
    url: str = ""
    source: SourceLocation | None = None


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """The changes in a build since the previous event."""

    vertexes: tuple[Vertex, ...] = ()
    statuses: tuple[VertexStatus, ...] = ()
    logs: tuple[VertexLog, ...] = ()
    warnings: tuple[VertexWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class SolveResult:
    """The result of a successful solve; the exporters define the keys."""

    exporter_response: Mapping[str, str]

    @property
    def digest(self) -> str | None:
        """Digest of the image's manifest or index; None when no image was exported."""
        return self.exporter_response.get("containerimage.digest")

    @property
    def platform(self) -> Platform | None:
        """Platform of the image; None if there are several, or BuildKit did not send it."""
        try:
            descriptor = json.loads(
                base64.b64decode(self.exporter_response.get("containerimage.descriptor", ""))
            )
            platform = descriptor["platform"]
            return Platform(platform["os"], platform["architecture"], platform.get("variant", ""))
        except (ValueError, LookupError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One record of BuildKit's build cache."""

    id: str
    size: int
    mutable: bool
    in_use: bool
    shared: bool
    created_at: int | None
    last_used_at: int | None
    usage_count: int
    description: str
    record_type: str
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform, printed as `linux/arm64` or `linux/arm/v7`."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class BuildKitVersion:
    """The daemon's version: `package` is its Go module, `revision` its commit."""

    package: str
    version: str
    revision: str


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One of the daemon's workers; its own platform comes first."""

    id: str
    labels: Mapping[str, str]
    platforms: tuple[Platform, ...]
    version: BuildKitVersion
