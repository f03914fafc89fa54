"""Record the end of each build request: one line of the log, and metrics."""

from __future__ import annotations

import structlog

from function_builder.builds.build import Build, Outcome
from function_builder.builds.phases import BuildPhase
from function_builder.contract.builds import BuildInfo, BuildState
from function_builder.contract.errors import Refusal
from function_builder.contract.result import BuildStatus
from function_builder.contract.tenancy import LimitMet
from function_builder.server.metrics import REASONS, count_build
from function_builder.server.prometheus import Metrics
from function_builder.server.service import Service

_log = structlog.get_logger(__name__)


def note_refusal(metrics: Metrics, refusal: Refusal, client: str) -> str:
    """Record a request that started no build; return its outcome as one word."""
    reason = REASONS.get(refusal.status, "other")
    limit = {"limit": refusal.setting} if isinstance(refusal, LimitMet) else {}
    _log.info("build refused", reason=reason, error=refusal.reason, client=client, **limit)
    metrics.refusals.labels(reason).inc()
    return reason


def describe(build: Build, requester: str) -> BuildInfo:
    """The document of a synchronous build, while it runs or at its end."""
    spans, config = build.measures.spans, build.request.config
    created = build.measures.accepted / 1e9
    started = spans[BuildPhase.WAIT][1] / 1e9 if BuildPhase.WAIT in spans else None
    info = BuildInfo(
        id=build.id,
        state=BuildState.RUNNING,
        created=created,
        image=config.image,
        repository=config.repository,
        started=started,
        attempt=1,
        asynchronous=False,
        requester=requester,
        phases={phase.value: took for phase, took in build.measures.seconds().items()},
    )
    if build.result is None:
        return info
    failed = BuildState.CANCELLED if build.outcome is Outcome.CANCELLED else BuildState.FAILED
    succeeded = build.result.status is BuildStatus.SUCCESS
    state = BuildState.SUCCESS if succeeded else failed
    return info.end(state, build.result, created + build.result.duration)


def note_end(service: Service, build: Build) -> str:
    """Record a build that has ended; return its outcome as one word."""
    result = build.result
    assert result is not None
    _log.info(
        "build ended",
        outcome=build.outcome.value,
        image=build.request.config.image,
        seconds=round(result.duration, 3),
        phases={phase: round(took, 3) for phase, took in build.measures.seconds().items()},
        digest=result.digest,
        error=result.error,
    )
    count_build(service.metrics, build)
    if service.usage is not None:
        service.usage.count_build(build)
    return build.outcome.value
