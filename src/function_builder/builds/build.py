"""One build: its request, its state and its log."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus

from aiobuildkit import SolveResult, Transfer
from function_builder.buildkits.pool import Chosen
from function_builder.builds.failures import Failure
from function_builder.builds.log import BuildLog
from function_builder.builds.phases import Measures
from function_builder.builds.platforms import PlatformReport
from function_builder.builds.source_policy import SourcePolicy
from function_builder.context.fingerprint import Fingerprint
from function_builder.contract.builds import DEFAULT_TENANT, new_id
from function_builder.contract.config import BuildConfig
from function_builder.contract.context import ContextEntry
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import BuildWarning, Reason
from function_builder.contract.image_format import ImageFormat
from function_builder.contract.manifest import SMALL_BYTES, MissingContent
from function_builder.contract.reader import Reader
from function_builder.contract.result import BuildResult, BuildStatus


class Outcome(StrEnum):
    """How a build ended, for the operator. Clients only get success or failure."""

    SUCCESS = "success"
    FAILED = "failed"
    """BuildKit reported an error: of a step, the Dockerfile or a registry."""
    CANCELLED = "cancelled"
    """The client disconnected, or the builder was shut down."""
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    """BuildKit did not answer, so the build did not start."""
    LOST = "lost"
    """The connection to BuildKit was lost, or BuildKit violated the protocol."""
    UNSUPPORTED = "unsupported"
    """The request names a platform whose programs BuildKit cannot run."""
    CRASHED = "crashed"
    """An internal error of the builder."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BuildRequest:
    """A request that has been checked, with everything that a build needs.

    Attributes:
        config: what to build.
        reader: the request's tar.
        context: the build context's entries in it.
        folders: the entries of each named context that is a folder of the tar, by its name.
        digests: of all those entries, in the order of `recorded_entries`, from `content_digests`.
        fingerprint: of the same entries.
        frontend: the attributes that choose the Dockerfile's frontend.
        secrets: decrypted build secrets.
        sbom_generator: the image that makes an SBOM, if the request asks for one.
        image_format: the builder's default for what the request leaves open.
        trust_domain: derived from the payload secret; only requests with the same one share caches.
        keeps_cache_mounts: whether its cache mounts are the same as in earlier builds.
        build_timeout: seconds that the build may take.
        tenant: whose it is.
        names_epoch: whether the Dockerfile has SOURCE_DATE_EPOCH, which BuildKit uses as a default.
        partial: whether its manifest has files whose content was not sent.
    """

    config: BuildConfig
    reader: Reader
    context: Sequence[ContextEntry]
    digests: Sequence[bytes]
    fingerprint: Fingerprint
    frontend: Mapping[str, str]
    secrets: Mapping[str, bytes]
    trust_domain: str
    build_timeout: float
    tenant: str = DEFAULT_TENANT
    folders: Mapping[str, Sequence[ContextEntry]] = field(default_factory=dict)
    sbom_generator: str = ""
    image_format: ImageFormat = field(default_factory=ImageFormat)
    keeps_cache_mounts: bool = True
    names_epoch: bool = False
    partial: bool = False

    @property
    def cache_scope(self) -> str | None:
        """`{trust_domain}/{repository}`: its builds share content records, caches and a BuildKit.

        None for a request without an image.
        """
        repository = self.config.repository
        return f"{self.trust_domain}/{repository}" if repository else None

    @property
    def is_large(self) -> bool:
        """Whether clients send its context with a manifest, so that other builders need its record.

        The record of a small context would take longer to write than its files to send.
        """
        return sum(entry.size for entry in self.context) >= SMALL_BYTES

    def absent_rows(self) -> Iterator[int]:
        """The rows of its manifest whose content was not sent."""
        for entries in (self.context, *self.folders.values()):
            yield from (-1 - entry.offset for entry in entries if entry.offset < 0)


@dataclass(slots=True, eq=False, repr=False)
class Build:
    """A build, from its acceptance to its end.

    Attributes:
        request: what to build.
        accepted: the time of the request, in the monotonic clock's seconds.
        id: its ID in logs and in the reply.
        metadata: headers for BuildKit: the trace of the request.
        measures: the times of its phases.
        transfers: the transfers of its context to BuildKit.
        platforms: BuildKit's status of each platform.
        source_policy: what BuildKit may read for it.
        placed: the reason for the choice of its BuildKit; two reasons if the first was lost.
        log: its lines.
        told: set when its answer may start: it waits for a slot, BuildKit has started it, or it
            ended before that.
        started: whether BuildKit has started it.
        outcome: how it ended.
        refusal: why it got no slot, or which content it lacks; None: it was not refused.
        result: its result without the log; None while it waits or runs.
    """

    request: BuildRequest
    accepted: float = field(default_factory=time.monotonic)
    id: str = field(default_factory=new_id)
    metadata: Mapping[str, str] = field(default_factory=dict)
    measures: Measures = field(default_factory=lambda: Measures(time.time_ns()))
    transfers: list[Transfer] = field(default_factory=list)
    platforms: PlatformReport = field(default_factory=PlatformReport)
    source_policy: SourcePolicy = field(default_factory=SourcePolicy)
    placed: list[Chosen] = field(default_factory=list)
    log: BuildLog = field(default_factory=BuildLog)
    told: asyncio.Event = field(default_factory=asyncio.Event)
    started: bool = False
    outcome: Outcome = Outcome.CRASHED
    refusal: Refusal | None = None
    result: BuildResult | None = None
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def end(self) -> BuildResult:
        """Wait for the result."""
        await self._ended.wait()
        assert self.result is not None
        return self.result

    @property
    def elapsed(self) -> float:
        """Seconds since the request was accepted."""
        return time.monotonic() - self.accepted

    def wait(self, line: str) -> None:
        """It waits for a slot; add `line` to its log."""
        self.log.append([line])
        self.told.set()

    def start(self, *, tell: bool = True) -> None:
        """BuildKit has started it; its client may be told later, by another call."""
        self.started = True
        if tell:
            self.told.set()

    def release(self) -> None:
        """Free what only a running build needs, because a slow client may keep its answer long."""
        self.request = dataclasses.replace(
            self.request, context=(), folders={}, digests=(), secrets={}
        )

    def succeed(self, result: SolveResult, warnings: Sequence[BuildWarning] = ()) -> None:
        """The image is built, and pushed if requested."""
        self.outcome = Outcome.SUCCESS
        digests = self.platforms.digests(self.request.config.platforms, result)
        self._end(
            BuildResult(
                status=BuildStatus.SUCCESS,
                digest=result.digest or "",
                digests=digests,
                warnings=tuple(warnings),
            )
        )

    def fail(
        self, outcome: Outcome, failure: Failure, warnings: Sequence[BuildWarning] = ()
    ) -> None:
        """It failed."""
        self.outcome = outcome
        self._end_failed(failure, warnings)

    def refuse(self, refusal: Refusal) -> None:
        """It got no slot, or lacks content that was not sent."""
        self.refusal = refusal
        busy = refusal.status == HTTPStatus.TOO_MANY_REQUESTS
        reason = Reason.BUSY if busy else Reason.SERVICE
        missing = refusal.ranges if isinstance(refusal, MissingContent) else ()
        failure = Failure(error=refusal.reason, reason=reason, retryable=True)
        self._end_failed(failure, missing=missing)

    def _end_failed(
        self,
        failure: Failure,
        warnings: Sequence[BuildWarning] = (),
        missing: Sequence[Sequence[int]] = (),
    ) -> None:
        self._end(
            BuildResult(
                status=BuildStatus.FAILED,
                error=failure.error,
                reason=failure.reason.value,
                source=failure.source,
                step=failure.step,
                rule=failure.rule,
                retryable=failure.retryable,
                warnings=tuple(warnings),
                missing=missing,
            )
        )

    def _end(self, result: BuildResult) -> None:
        self.result = dataclasses.replace(
            result,
            image=self.request.config.image,
            duration=self.elapsed,
            build_id=self.id,
        )
        self.log.close()
        self.told.set()
        self._ended.set()
