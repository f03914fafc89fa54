"""A build's warnings, and the place where it failed, from BuildKit's status."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from aiobuildkit import (
    RPCError,
    SolveError,
    SourceLocation,
    SourceRange,
    StatusEvent,
    VertexWarning,
)
from function_builder.builds.masking import Mask
from function_builder.contract.findings import MAX_WARNINGS, BuildWarning, SourceExcerpt

MAX_NAME_CHARS: Final = 1000
_MAX_LINE_CHARS: Final = 400
_MAX_EXCERPT_LINES: Final = 24
_MAX_ERRORS: Final = 20
"""The most different errors of vertexes; thousands of steps may be cancelled with one text."""

_RULE: Final = re.compile(r"([A-Z][A-Za-z]+): (.*)", re.DOTALL)
_PLACE: Final = re.compile(r" \(line \d+\)\Z")
"""`frontend/dockerfile/linter/linter.go` adds both to the message of a rule."""


_FRONTENDS_VERTEX: Final = "[internal] "


def is_cancellation(error: str) -> bool:
    """Whether a vertex was cancelled, because of the failure of another one."""
    return error.endswith("context canceled")


class Findings:
    """Collects warnings and the names of steps from a build's status.

    Args:
        mask: hides secrets in all texts.

    Attributes:
        mask: the argument.
        warnings: different ones, at most `MAX_WARNINGS`.
    """

    def __init__(self, mask: Mask) -> None:
        self.warnings: list[BuildWarning] = []
        self.mask = mask
        self._names: dict[str, str] = {}
        self._running: dict[str, None] = {}
        self._failed: dict[str, str] = {}

    def observe(self, event: StatusEvent) -> list[BuildWarning]:
        """Read a status event; return new warnings."""
        for vertex in event.vertexes:
            self._names[vertex.digest] = vertex.name
            if vertex.completed is not None:
                self._running.pop(vertex.digest, None)
            elif vertex.started is not None:
                self._running[vertex.digest] = None
            if vertex.error and len(self._failed) < _MAX_ERRORS:
                self._failed.setdefault(vertex.error, vertex.digest)
        new = []
        for warning in map(self._warning, event.warnings):
            if warning not in self.warnings and len(self.warnings) < MAX_WARNINGS:
                self.warnings.append(warning)
                new.append(warning)
        return new

    def failed_step(self, error: RPCError) -> str:
        """The name of the vertex that failed; empty if it is unknown."""
        if isinstance(error, SolveError) and error.vertex in self._names:
            return self._shown(self._names[error.vertex])
        # For a base image and a push BuildKit names no vertex, but its error quotes the vertex's.
        told = (digest for text, digest in self._failed.items() if text in error.message)
        digest = next(told, None)
        return self._shown(self._names[digest]) if digest else ""

    def reported(self, error: RPCError) -> RPCError:
        """The error of the vertex that failed, in place of one that BuildKit could not send."""
        for text, digest in self._failed.items():
            if not is_cancellation(text):
                in_frontend = self._names[digest].startswith(_FRONTENDS_VERTEX)
                return SolveError(error.code, text, vertex=digest, in_frontend=in_frontend)
        return error

    def running_step(self) -> str:
        """The name of the vertex that has run longest; empty if none runs."""
        digest = next(iter(self._running), None)
        return self._shown(self._names[digest]) if digest else ""

    def excerpt(self, location: SourceLocation | None) -> SourceExcerpt | None:
        """The instruction that failed, with lines around it."""
        if location is None or not location.ranges:
            return None
        # Line by line, because a masked value of several lines would change the numbers.
        lines = location.text.split("\n")
        first = min(each.start_line for each in location.ranges)
        last = min(max(map(_last_line, location.ranges)), len(lines))
        if not 1 <= first <= last:
            return None
        file = self._shown(location.filename)
        marked = {
            number
            for each in location.ranges
            for number in range(max(each.start_line, first), min(_last_line(each), last) + 1)
        }
        return SourceExcerpt(file, first, last, self._excerpt(lines, file, first, last, marked))

    def _excerpt(
        self, lines: Sequence[str], file: str, first: int, last: int, marked: set[int]
    ) -> str:
        """Text in the form of `Source.Print` in BuildKit's `solver/errdefs/source.go`."""
        around = 2 if first == last else 1
        begin, end = max(first - around, 1), min(last + around, len(lines))
        shown = [
            f" {number:3d} | {'>>>' if number in marked else '   '} {self._line(lines[number - 1])}"
            for number in range(begin, min(end, begin + _MAX_EXCERPT_LINES - 1) + 1)
        ]
        if end - begin >= _MAX_EXCERPT_LINES:
            shown.append("     …")
        rule = "-" * 20
        return "\n".join([f"{file}:{first}", rule, *shown, rule])

    def _line(self, line: str) -> str:
        return self.mask.beginning(line.rstrip("\r"), _MAX_LINE_CHARS)

    def _shown(self, name: str) -> str:
        return self.mask.beginning(name, MAX_NAME_CHARS)

    def _warning(self, warning: VertexWarning) -> BuildWarning:
        text = self._line(warning.short)
        rule = _RULE.fullmatch(text)
        place = warning.source
        line = min((each.start_line for each in place.ranges), default=0) if place else 0
        return BuildWarning(
            message=_PLACE.sub("", rule[2] if rule else text),
            rule=rule[1] if rule else "",
            url=self._line(warning.url),
            file=self._shown(place.filename) if place and line else "",
            line=line,
        )


def _last_line(part: SourceRange) -> int:
    return max(part.start_line, part.end_line)
