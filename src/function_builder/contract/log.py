"""The forms of a log line in a reply."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class LogPrefixes(StrEnum):
    """The prefix of each log line.

    pro-builder's API document shows `FULL`; pro-builder 0.5.3 and newer print `TIME`
    (openfaas/docs 3ec2b42).
    """

    FULL = "full"
    """The kind (`v`, `s` or `l`) and the time: `l: 2022-06-23T09:10:12Z text`."""

    TIME = "time"
    """Only the time: `2022-06-23T09:10:12Z text`."""

    NONE = "none"
    """No prefix: `text`."""


class StepText(str):
    """A line of the log with its step.

    It is a string, for code that only uses the line.

    Attributes:
        step: the step's number, from 1, and a word of `StepState` if the line is not output:
            "3 started".
    """

    __slots__ = ("step",)

    step: str

    def __new__(cls, text: str, step: str) -> Self:
        """Make one from a text."""
        line = super().__new__(cls, text)
        line.step = step
        return line


class StepState(StrEnum):
    """The event of a step in a log line. Clients must accept unknown values."""

    ANNOUNCED = "announced"
    """The step is part of the build, and has not started."""
    STARTED = "started"
    COMPLETED = "completed"
    """A step may start again. For example, an image is first looked up, and then fetched."""
    CACHED = "cached"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Another step failed, or the build was cancelled."""
    MOVING = "moving"
    """A part of the step continues, such as one layer's download; the line has its bytes."""
    MOVED = "moved"
    """That part has ended."""
