"""The forms of a log line in a reply."""

from enum import StrEnum


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
