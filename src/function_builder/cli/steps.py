"""A build's steps as its log tells of them, for a view to show."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from function_builder.client import LogLine, OutputLine, StatusLine, StepLine

_KEPT_OUTPUT: Final = 20
_NUMBERED = re.compile(r"\[[^]]*\d+/\d+\] ")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x1b\x07]*(?:\x07|\x1b\\)?|[ -~]?)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(slots=True)
class Step:
    """One step, which may run more than once: an export does, to write and to push.

    Attributes:
        name: as the log has it.
        began: when it began last, by this machine's monotonic clock; None when it does not run.
        seconds: how long it ran before, by the builder's count.
        cached: it was announced and ended, but never ran.
    """

    name: str
    began: float | None = None
    seconds: float = 0.0
    cached: bool = False

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.began is not None

    @property
    def took(self) -> str:
        """How long it ran, for people."""
        return "cached" if self.cached else f"{self.seconds:.2f}s"

    @property
    def command(self) -> str:
        """What a RUN step runs; empty for any other."""
        return self.name.partition(" RUN ")[2]


class Steps:
    """What is known of a build: its steps by name, its newest output, what it moves at the moment.

    BuildKit announces the Dockerfile's steps all at once and in no order, with the same line that
    says later that one was begun. So a numbered step counts as begun at its second such line, or
    when it has ended without one, as cached steps do.

    The log does not say which step wrote a line of output, so output belongs to the build.

    Attributes:
        begun: the steps that were begun, the earliest first.
        announced: the names of all numbered steps.
        output: the newest lines.
        activity: what was moved last, while its step runs.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.begun: dict[str, Step] = {}
        self.announced: set[str] = set()
        self.output: tuple[str, ...] = ()
        self.activity: StatusLine | None = None
        self._clock = clock

    def take(self, line: LogLine) -> Step | None:
        """Take the log's next line in; returns the step that was begun or ended by it."""
        match line:
            case StepLine(name, None) if _NUMBERED.match(name) and name not in self.announced:
                self.announced.add(name)
            case StepLine(name, None):
                step = self.begun.setdefault(name, Step(name))
                step.began, step.cached = self._clock(), False
                self.activity = None
                return step
            case StepLine(name, float() as seconds):
                never_ran = name in self.announced and not seconds
                step = self.begun.setdefault(name, Step(name, cached=never_ran))
                step.began, step.seconds = None, step.seconds + seconds
                self.activity = None
                return step
            case StatusLine():
                self.activity = line
            case OutputLine(text):
                self.output = (*self.output, printable(text))[-_KEPT_OUTPUT:]
        return None

    def failing(self, error: str) -> Step | None:
        """The step whose command a build's error quotes; None if it quotes none."""
        for step in reversed(self.begun.values()):
            if step.command and step.command in error:
                return step
        return None


def printable(text: str) -> str:
    """A line that a build wrote, without what could steer a terminal."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text)).expandtabs()
