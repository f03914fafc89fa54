"""How requests to build ended: one line of the log and the metrics for each."""

from __future__ import annotations

import structlog

from function_builder.builds.build import Build
from function_builder.contract.errors import Refusal
from function_builder.server.metrics import REASONS, count_build
from function_builder.server.prometheus import Metrics
from function_builder.server.slots import NoSlot

_log = structlog.get_logger(__name__)


def note_refusal(metrics: Metrics, refusal: Refusal, client: str) -> str:
    """Note a request that came to no build; returns its outcome in a word."""
    reason = REASONS.get(refusal.status, "other")
    limit = {"limit": refusal.setting} if isinstance(refusal, NoSlot) else {}
    _log.info("build refused", reason=reason, error=refusal.reason, client=client, **limit)
    metrics.refusals.labels(reason).inc()
    return reason


def note_end(metrics: Metrics, build: Build) -> str:
    """Note a build that has ended; returns its outcome in a word."""
    result = build.result
    assert result is not None
    _log.info(
        "build ended",
        outcome=build.outcome.value,
        seconds=round(result.duration, 3),
        phases={phase: round(took, 3) for phase, took in build.measures.seconds().items()},
        digest=result.digest,
        error=result.error,
    )
    count_build(metrics, build)
    return build.outcome.value
