"""One build: what was asked for, how it stands, what it said."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus

from aiobuildkit import SolveResult, Transfer
from function_builder.buildkits.pool import Chosen
from function_builder.builds.failures import Failure
from function_builder.builds.log import BuildLog
from function_builder.builds.phases import Measures
from function_builder.builds.platforms import PlatformReport
from function_builder.contract.builds import new_id
from function_builder.contract.config import BuildConfig
from function_builder.contract.context import ContextEntry
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import BuildWarning, Reason
from function_builder.contract.reader import Reader
from function_builder.contract.result import BuildResult, BuildStatus


class Outcome(StrEnum):
    """How a build ended, for the operator; its client hears only of success and failure."""

    SUCCESS = "success"
    FAILED = "failed"
    """BuildKit said no: a step, the Dockerfile, a registry."""
    CANCELLED = "cancelled"
    """Its client went away, or the builder was shut down."""
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    """BuildKit did not answer, so that nothing was begun."""
    LOST = "lost"
    """BuildKit vanished, or could not be understood."""
    UNSUPPORTED = "unsupported"
    """A platform was asked for whose programs cannot be run here."""
    CRASHED = "crashed"
    """A fault of the builder."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BuildRequest:
    """A request that has been checked: everything that a build needs.

    Attributes:
        config: what to build.
        reader: the request's tar.
        context: the build context's entries in it.
        folders: the entries of each named context that is a folder of the tar, by its name.
        digests: the content of all those entries, in the order of `recorded_entries`, as
            `content_digests` gives it.
        frontend: the attributes that fix the Dockerfile's frontend.
        secrets: build secrets, opened.
        sbom_generator: the image that makes an SBOM, if one is asked for.
        trust_domain: requests of one payload secret share caches, and with no other.
        names_epoch: whether the Dockerfile has SOURCE_DATE_EPOCH in it: BuildKit takes its
            default from there.
    """

    config: BuildConfig
    reader: Reader
    context: Sequence[ContextEntry]
    digests: Sequence[bytes]
    frontend: Mapping[str, str]
    secrets: Mapping[str, bytes]
    trust_domain: str
    folders: Mapping[str, Sequence[ContextEntry]] = field(default_factory=dict)
    sbom_generator: str = ""
    names_epoch: bool = False


@dataclass(slots=True, eq=False, repr=False)
class Build:
    """A build under way, or at its end.

    Attributes:
        request: what to build.
        accepted: when the request came, in the monotonic clock's seconds.
        id: its name in logs and in the reply.
        metadata: what BuildKit is told beside the request: the trace that the build belongs to.
        measures: where its time went.
        transfers: what BuildKit asked for of its context.
        platforms: what BuildKit said of them.
        placed: why it was sent to the BuildKit that it was sent to; twice if the first was lost.
        log: its lines.
        told: set when there is something to tell its client: that it waits for a slot, that
            BuildKit has taken it up, or how it ended without.
        started: whether BuildKit has taken it up.
        outcome: how it ended.
        refusal: why it was never begun, where it had no slot; it has no outcome then.
        result: its end, without the log; None while it waits or runs.
    """

    request: BuildRequest
    accepted: float = field(default_factory=time.monotonic)
    id: str = field(default_factory=new_id)
    metadata: Mapping[str, str] = field(default_factory=dict)
    measures: Measures = field(default_factory=lambda: Measures(time.time_ns()))
    transfers: list[Transfer] = field(default_factory=list)
    platforms: PlatformReport = field(default_factory=PlatformReport)
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
        """It waits for a slot; `line` says so in its log."""
        self.log.append([line])
        self.told.set()

    def start(self) -> None:
        """BuildKit has taken it up."""
        self.started = True
        self.told.set()

    def release(self) -> None:
        """Drop what only a build under way needs: its answer may wait for its client for long."""
        self.request = dataclasses.replace(
            self.request, context=(), folders={}, digests=(), secrets={}
        )

    def succeed(self, result: SolveResult, warnings: Sequence[BuildWarning] = ()) -> None:
        """The image is built, and pushed if that was asked for."""
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
        """It came to nothing."""
        self.outcome = outcome
        self._end_failed(failure, warnings)

    def refuse(self, refusal: Refusal) -> None:
        """It had no slot, and nothing was begun."""
        self.refusal = refusal
        busy = refusal.status == HTTPStatus.TOO_MANY_REQUESTS
        reason = Reason.BUSY if busy else Reason.SERVICE
        self._end_failed(Failure(error=refusal.reason, reason=reason, retryable=True))

    def _end_failed(self, failure: Failure, warnings: Sequence[BuildWarning] = ()) -> None:
        self._end(
            BuildResult(
                status=BuildStatus.FAILED,
                error=failure.error,
                reason=failure.reason.value,
                source=failure.source,
                step=failure.step,
                retryable=failure.retryable,
                warnings=tuple(warnings),
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
