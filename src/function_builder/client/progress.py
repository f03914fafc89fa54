"""Parse the log lines of a reply: the step, its output, and bytes transferred.

Our stream has the step of each line beside it (`BuildResult.steps`). The lines alone, which are
pro-builder's, do not say which step wrote a line, or whether a step was cached.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from function_builder.contract.log import StepState
from function_builder.contract.result import BuildResult

_PREFIXED = re.compile(r"(?:([vsl]): )?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ?(.*)", re.DOTALL)
_TIMED = re.compile(r"(.+) (\d+\.\d\d)s", re.DOTALL)
_COUNTED = re.compile(r"(.+) (\d+)", re.DOTALL)
_STEP = re.compile(r"(\d{1,9})(?: ([a-z]+))?")
_MOVES = (StepState.MOVING, StepState.MOVED)


@dataclass(frozen=True, slots=True)
class StepLine:
    """A step has started, perhaps again (`seconds` is None), or has ended after `seconds`.

    Attributes:
        name: as the Dockerfile has it, with its number.
        seconds: how long it ran.
        step: its number in the stream; 0 if that is not known.
        state: what happened; None if that is not known.
    """

    name: str
    seconds: float | None
    step: int = 0
    state: StepState | None = None


@dataclass(frozen=True, slots=True)
class StatusLine:
    """The progress of one activity of a running step, in bytes (0 if it is not in bytes).

    Attributes:
        name: of the activity.
        current: bytes so far.
        step: the step's number in the stream; 0 if that is not known.
        ended: whether the activity is known to have ended.
    """

    name: str
    current: int
    step: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line that a RUN step wrote, or one that looks the same (`log_prefixes`).

    Attributes:
        text: the line.
        step: the step's number in the stream; 0 if that is not known.
    """

    text: str
    step: int = 0


LogLine = StepLine | StatusLine | OutputLine


def log_lines(event: BuildResult) -> Iterator[LogLine]:
    """Read the log of a reply, or of one object of a stream."""
    steps = event.steps if len(event.steps) == len(event.log) else ()
    for line, step in zip_longest(event.log, steps, fillvalue=""):
        yield parse_log_line(line, step)


def parse_log_line(line: str, step: str = "") -> LogLine:
    """Read one element of a reply's `log`, and of its `steps` if there is one.

    Without a step the format has one ambiguity, which is pro-builder's. If a step's name ends like
    a time (`RUN sleep 1.50s`), its start looks like its end.
    """
    tagged = _STEP.fullmatch(step)
    number = int(tagged[1]) if tagged else 0
    state = _state(tagged[2]) if tagged else None
    prefixed = _PREFIXED.fullmatch(line)
    kind, rest = prefixed.groups() if prefixed else (None, line)
    if kind == "s" or state in _MOVES:
        counted = _COUNTED.fullmatch(rest)
        name, current = (counted[1], int(counted[2])) if counted else (rest, 0)
        return StatusLine(name, current, number, state is StepState.MOVED)
    if kind == "v" or state is not None:
        timed = _TIMED.fullmatch(rest)
        if timed is None or state in (StepState.ANNOUNCED, StepState.STARTED):
            return StepLine(rest, None, number, state)
        return StepLine(timed[1], float(timed[2]), number, state)
    return OutputLine(rest if kind or number else line, number)


def _state(word: str | None) -> StepState | None:
    try:
        return StepState(word) if word else None
    except ValueError:
        return None
