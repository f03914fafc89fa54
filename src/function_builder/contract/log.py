"""The forms of a log line in a reply."""

from enum import StrEnum
from typing import Self


class LogPrefixes(StrEnum):
    """What precedes the text of each log line.

    pro-builder's API document shows `FULL`; pro-builder 0.5.3 and newer print `TIME`
    (openfaas/docs 3ec2b42).
    """

    FULL = "full"
    """The kind (`v`, `s` or `l`) and the time: `l: 2022-06-23T09:10:12Z text`."""

    TIME = "time"
    """The time alone: `2022-06-23T09:10:12Z text`."""

    NONE = "none"
    """Nothing: `text`."""


class StepText(str):
    """A line of the log that knows its step.

    It is a string, so that all who want the line alone need not know of it.

    Attributes:
        step: the step's number, from 1, and what the line says of it if that is not output:
            "3 started". The words are those of `StepState`.
    """

    __slots__ = ("step",)

    step: str

    def __new__(cls, text: str, step: str) -> Self:
        """Make one of a text."""
        line = super().__new__(cls, text)
        line.step = step
        return line


class StepState(StrEnum):
    """What a line of the log says of its step. Clients must accept words that they do not know."""

    ANNOUNCED = "announced"
    """The step will be looked at; nothing is done yet."""
    STARTED = "started"
    COMPLETED = "completed"
    """A step may start again: to load an image, for one, is to look it up and then to fetch it."""
    CACHED = "cached"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Another step failed, or the build was cancelled."""
    MOVING = "moving"
    """A part of the step goes on, such as one layer's download; the line has its bytes."""
    MOVED = "moved"
    """That part has ended."""
