"""The log lines of a reply, read back: which step, which output, how many bytes."""

import re
from dataclasses import dataclass

_PREFIXED = re.compile(r"([vsl]): (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) ?(.*)", re.DOTALL)
_TIMED = re.compile(r"(.+) (\d+\.\d\d)s", re.DOTALL)
_COUNTED = re.compile(r"(.+) (\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class StepLine:
    """A step was begun, or begun anew (``seconds`` is None), or has ended after ``seconds``."""

    name: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class StatusLine:
    """How far one activity of a running step has come, in bytes (0 where bytes say nothing)."""

    name: str
    current: int


@dataclass(frozen=True, slots=True)
class OutputLine:
    """A line that a RUN step wrote, or a line without its kind (``log_prefixes``)."""

    text: str


LogLine = StepLine | StatusLine | OutputLine


def parse_log_line(line: str) -> LogLine:
    """Read one element of a reply's ``log``.

    The format has one ambiguity, which is pro-builder's: a step whose own name ends like a time
    (``RUN sleep 1.50s``) reads as ended when it begins.
    """
    prefixed = _PREFIXED.fullmatch(line)
    if prefixed is None:
        return OutputLine(line)
    kind, _, rest = prefixed.groups()
    if kind == "l":
        return OutputLine(rest)
    if kind == "v":
        timed = _TIMED.fullmatch(rest)
        return StepLine(timed[1], float(timed[2])) if timed else StepLine(rest, None)
    counted = _COUNTED.fullmatch(rest)
    return StatusLine(counted[1], int(counted[2])) if counted else StatusLine(rest, 0)
