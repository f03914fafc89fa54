"""Explain a denial of the source policy: which rule it was, and which line of the Dockerfile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiobuildkit import RPCError, SolveError, SourceLocation, SourceRange
from function_builder.builds.build import Build, BuildRequest
from function_builder.builds.failures import denied_source
from function_builder.contract.context import DOCKERFILE
from function_builder.contract.errors import shown

_OWN_MACHINE: Final = (
    "ADD may not name BuildKit's own machine or network link, or a metadata service, on this "
    "builder (local_sources)."
)


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a source was not read.

    Attributes:
        rule: the name of the operator's rule; empty: the denial is not from an operator's rule.
        note: a line for the log.
        source: the instruction that names it; None if it is unknown here.
    """

    rule: str
    note: str
    source: SourceLocation | None


def explain(build: Build, error: RPCError) -> Denial | None:
    """Explain a denial; None: the error is not a denial. It may read the Dockerfile."""
    denied = denied_source(error.message)
    if denied is None:
        return None
    from function_builder.builds import source_matching  # noqa: PLC0415 (few builds are denied)

    rule = source_matching.denying_rule(build.source_policy, denied)
    source = error.source if isinstance(error, SolveError) else None
    if source is None or not source.ranges:
        source = _located(build.request, denied)
    if rule is None or rule in build.source_policy.local:
        return Denial("", _OWN_MACHINE, source)
    return Denial(
        str(rule),
        f"The source policy of this builder denies {shown(denied)}, by its rule {rule}.",
        source,
    )


def _located(request: BuildRequest, denied: str) -> SourceLocation | None:
    """The instruction that names a source, for which BuildKit gave none."""
    from function_builder.builds.dockerfile_sources import named_sources  # noqa: PLC0415 (as above)

    config = request.config
    name = config.dockerfile or DOCKERFILE
    entry = next((each for each in request.context if each.path == name), None)
    if entry is None:
        return None
    dockerfile = request.reader.read(entry.offset, entry.size)
    for each in named_sources(dockerfile, config.build_args, config.contexts):
        if each.source == denied:
            text = dockerfile.decode("utf-8", "replace")
            return SourceLocation(name, (SourceRange(each.line, 0, each.end_line, 0),), text)
    return None
