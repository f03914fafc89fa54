"""How a build that failed ends: its outcome, its failure, and the last lines of its log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import structlog

from aiobuildkit import BuildKitError, ConnectionFailed, RPCError, SolveError
from function_builder.builds import denials
from function_builder.builds.build import Build, BuildRequest, Outcome
from function_builder.builds.failures import (
    Failure,
    absent_file,
    classify,
    is_too_large,
    near_miss,
    shortened,
    with_meaning,
    without_host_paths,
)
from function_builder.builds.findings import Findings
from function_builder.builds.platforms import UnsupportedPlatform
from function_builder.contract.errors import shown
from function_builder.contract.findings import Reason

_log = structlog.get_logger(__name__)

_STOPPED_AT = {Reason.TIMEOUT: "Timed out at"}

CRASHED = Failure(
    error="the builder failed: this is not the fault of your build",
    reason=Reason.SERVICE,
    retryable=True,
)
"""The failure of a build that ended by an error of the builder."""


def timed_out(request: BuildRequest, findings: Findings) -> Failure:
    """The failure of a build that took too long."""
    limit = f"{request.build_timeout:g} s allowed (build_timeout)"
    return Failure(
        error=f"the build took longer than the {limit}",
        reason=Reason.TIMEOUT,
        step=findings.running_step(),
    )


def failed(
    build: Build, error: UnsupportedPlatform | BuildKitError, findings: Findings
) -> tuple[Outcome, Failure]:
    """The end of a build for which BuildKit gave an error, or that no BuildKit can run."""
    match error:
        case UnsupportedPlatform():
            return Outcome.UNSUPPORTED, Failure(error=str(error), reason=Reason.PLATFORM)
        case RPCError():
            if is_too_large(error):
                error = findings.reported(error)
            step = findings.failed_step(error)
            reason, retryable = classify(error, step)
            text = shortened(findings.mask.text(with_meaning(without_host_paths(error.message))))
            denial = denials.explain(build, error)
            if denial is not None and denial.rule:
                text = f"{text} (rule: {denial.rule})"
            source = error.source if isinstance(error, SolveError) else None
            return Outcome.FAILED, Failure(
                error=f"failed to solve: {text}",
                reason=reason,
                retryable=retryable,
                step=step,
                rule="" if denial is None else shortened(denial.rule),
                source=findings.excerpt(source if denial is None else denial.source),
                note="" if denial is None else denial.note,
            )
        case ConnectionFailed():
            _log.warning("BuildKit cannot be reached", reason=str(error))
            text = "BuildKit cannot be reached: try again later"
            outcome = Outcome.LOST if build.started else Outcome.UNREACHABLE
        case _:
            _log.warning("BuildKit was lost", reason=str(error))
            text = "BuildKit was lost in the middle of the build: try again"
            outcome = Outcome.LOST
    return outcome, Failure(error=text, reason=Reason.SERVICE, retryable=True)


def cancelled(cancellation: asyncio.CancelledError) -> Failure:
    """The failure of a build that was cancelled, with the reason."""
    cause = f": {cancellation.args[0]}" if cancellation.args else ""
    return Failure(error=f"the build was cancelled{cause}", reason=Reason.CANCELLED, retryable=True)


def last_lines(build: Build, failure: Failure) -> Iterator[str]:
    """Yield the last lines of the log of a failed build."""
    if failure.step:
        yield f"{_STOPPED_AT.get(failure.reason, 'Failed at')} {failure.step}"
    if failure.source:
        yield from failure.source.excerpt.split("\n")
    if failure.note:
        yield failure.note
    absent = absent_file(failure.error)
    if absent and "--from=" not in failure.step:
        near = near_miss(absent, (entry.path for entry in build.request.context))
        if near == absent:
            yield f"The context has {shown(near)}, but its ignore file leaves that out."
        elif near:
            yield f"The context has {shown(near)}, but not {shown(absent)}."
