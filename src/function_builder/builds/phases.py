"""The times of a build's phases, and the number of its cached steps.

Our own phases follow one another. BuildKit's are computed from its status events, by the names
that its Dockerfile frontend and its image exporter give to vertexes and statuses
(`frontend/dockerfile/dockerfile2llb`, `exporter/containerimage`). They may overlap one another.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from enum import StrEnum
from typing import Final

from aiobuildkit import StatusEvent, Vertex, VertexStatus

_LOCAL: Final = ("[internal] load build ", "[internal] load .dockerignore")
_EXPORTER: Final = "exporting to "
_EXPORT: Final = ("exporting ", "naming to ")
_PUSH: Final = "pushing "
_STEP: Final = re.compile(r"\[(?:[^\]]+ )?\d+/\d+\] ")
"""A vertex of a Dockerfile's instruction: `[2/3] RUN …`, `[linux/arm64 tests 1/4] FROM …`."""


class BuildPhase(StrEnum):
    """The parts of a build's time."""

    UPLOAD = "upload"
    """From the request's headers to its last byte."""
    CHECK = "check"
    """Signature, archive, config, content digests."""
    WAIT = "wait"
    """Until it has a build slot."""
    QUEUE = "queue"
    """Until BuildKit's first status event."""
    CONTEXT = "context"
    """BuildKit reads Dockerfile, ignore file and context."""
    BUILD = "build"
    """Base images and the Dockerfile's steps."""
    EXPORT = "export"
    """BuildKit writes layers and manifests."""
    PUSH = "push"
    """BuildKit pushes them to the registry."""


class Step(StrEnum):
    """The result of a step of a Dockerfile."""

    CACHED = "cached"
    RUN = "run"
    FAILED = "failed"


class Measures:
    """The measures of one build.

    Args:
        accepted: the time of the request, in nanoseconds since the epoch.

    Attributes:
        spans: beginning and end of each phase, in nanoseconds since the epoch.
        has_steps: whether BuildKit has reported a step, and so has read the Dockerfile.
    """

    def __init__(self, accepted: int) -> None:
        self.accepted = accepted
        self.spans: dict[BuildPhase, tuple[int, int]] = {}
        self.has_steps = False
        self._marked = accepted
        self._begun = 0
        self._steps: dict[str, Step] = {}

    def end(self, phase: BuildPhase) -> None:
        """Record the end of one of our phases, which began at the end of the previous one."""
        if phase not in self.spans:
            began, self._marked = self._marked, time.time_ns()
            self.spans[phase] = (began, self._marked)

    def observe(self, event: StatusEvent) -> None:
        """Read BuildKit's phases and steps from a status event."""
        self.end(BuildPhase.QUEUE)
        for vertex in event.vertexes:
            self.has_steps = self.has_steps or _STEP.match(vertex.name) is not None
            if vertex.completed is not None:
                self._observe_vertex(vertex)
        for status in event.statuses:
            if status.completed is not None:
                self._observe_status(status)

    @property
    def steps(self) -> Counter[Step]:
        """The number of the Dockerfile's steps that ended, by result."""
        return Counter(self._steps.values())

    def seconds(self) -> dict[BuildPhase, float]:
        """Seconds of each phase, at least 0 even if clocks of machines differ."""
        return {phase: max(0, end - begin) / 1e9 for phase, (begin, end) in self.spans.items()}

    def _observe_vertex(self, vertex: Vertex) -> None:
        if _STEP.match(vertex.name):
            failed = Step.FAILED if vertex.error else Step.RUN
            self._steps[vertex.digest] = Step.CACHED if vertex.cached else failed
        if vertex.name.startswith(_LOCAL):
            # Every build reads its own files first, so this is its start by BuildKit's clock.
            self._begun = self._begun or vertex.started or 0
            self._widen(BuildPhase.CONTEXT, vertex.started, vertex.completed)
        elif not vertex.name.startswith(_EXPORTER):
            self._widen(BuildPhase.BUILD, vertex.started, vertex.completed)

    def _observe_status(self, status: VertexStatus) -> None:
        if status.id.startswith(_PUSH):
            self._widen(BuildPhase.PUSH, status.started, status.completed)
        elif status.id.startswith(_EXPORT):
            self._widen(BuildPhase.EXPORT, status.started, status.completed)

    def _widen(self, phase: BuildPhase, began: int | None, ended: int | None) -> None:
        if began is not None and ended is not None:
            # A step that is shared with another build may have begun long before this build.
            began = max(began, self._begun)
            ended = max(ended, began)
            first, last = self.spans.get(phase, (began, ended))
            self.spans[phase] = (min(first, began), max(last, ended))
