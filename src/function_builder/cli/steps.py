"""The steps of a build, read from its log, for the views."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from function_builder.client import LogLine, OutputLine, StatusLine, StepLine, StepState

_KEPT_OUTPUT: Final = 20
_NUMBERED = re.compile(r"\[[^]]*\d+/\d+\] ")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x1b\x07]*(?:\x07|\x1b\\)?|[ -~]?)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(slots=True)
class Step:
    """One step, which may run more than once: an image is first resolved, and then pulled.

    Attributes:
        name: as the log has it.
        number: in the stream; 0 if the stream has no numbers.
        began: its last start, by this machine's monotonic clock; None when it does not run.
        seconds: how long it ran at most, by the builder's count.
        outcome: how it ended last; None if that is not known.
    """

    name: str
    number: int = 0
    began: float | None = None
    seconds: float = 0.0
    outcome: StepState | None = None

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.began is not None

    @property
    def took(self) -> str:
        """How long it ran, for people, or why it did not; empty if the log says neither."""
        if self.outcome in (StepState.CACHED, StepState.CANCELLED):
            return str(self.outcome)
        return f"{self.seconds:.2f}s" if self.outcome or self.seconds else ""

    @property
    def command(self) -> str:
        """What a RUN step runs; empty for any other."""
        return self.name.partition(" RUN ")[2]


class Steps:
    """What is known of a build: its steps, its newest output, what it moves at the moment.

    BuildKit announces the Dockerfile's steps all at once and in no order. A stream of ours marks
    such a line (`StepState`). Other builders print the same line when a step is announced and when
    it starts. With these, a numbered step counts as started at its second such line, or at its end.
    Then it is not known whether it was cached, or failed before it ran.

    Attributes:
        begun: the steps that have started, the earliest first, by number or by name.
        announced: the names of all numbered steps.
        output: the newest lines.
        activity: the last transfer, while its step runs.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.begun: dict[int | str, Step] = {}
        self.announced: set[str] = set()
        self.output: tuple[str, ...] = ()
        self.activity: StatusLine | None = None
        self._clock = clock

    def observe(self, line: LogLine) -> Step | None:
        """Read the log's next line; return the step that started or ended with it."""
        match line:
            case StepLine():
                return self._step(line)
            case StatusLine():
                self.activity = line
            case OutputLine(text):
                self.output = (*self.output, printable(text))[-_KEPT_OUTPUT:]
        return None

    def _step(self, line: StepLine) -> Step | None:
        if _NUMBERED.match(line.name) and line.name not in self.announced:
            self.announced.add(line.name)
            if line.state is None and line.seconds is None:
                return None
        if line.state is StepState.ANNOUNCED:
            return None
        step = self.begun.setdefault(line.step or line.name, Step(line.name, line.step))
        self.activity = None
        if line.state is StepState.STARTED or (line.state is None and line.seconds is None):
            step.began, step.outcome = self._clock(), None
        else:
            step.began, step.outcome = None, line.state
            step.seconds = max(step.seconds, line.seconds or 0)
        return step

    def failing(self, error: str, name: str = "") -> Step | None:
        """The step that failed; None if it is not known.

        Args:
            error: of the build, which may quote the step's command.
            name: of the step, if the builder says it.
        """
        steps = list(reversed(self.begun.values()))
        named = (step for step in steps if name and step.name == name)
        known = (step for step in steps if step.outcome is StepState.FAILED)
        quoted = (step for step in steps if step.command and step.command in error)
        return next(named, None) or next(known, None) or next(quoted, None)


def printable(text: str) -> str:
    """A line that a build wrote, without control sequences of terminals."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text)).expandtabs()
