"""What the peer of an HTTP/2 connection did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "Data",
    "Ended",
    "Event",
    "GoingAway",
    "Headers",
    "HeadersReceived",
    "Reset",
    "SettingsReceived",
]

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """The peer has spoken HTTP/2, and said what it allows."""


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """Headers or trailers of a stream; ``opened`` when they opened it.

    A long value may be `compression.Coded`.
    """

    stream_id: int
    headers: Headers
    opened: bool


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a stream's body. ``size`` is what it took of the flow-control windows."""

    stream_id: int
    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The peer will send no more on this stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer dropped a stream, both ways."""

    stream_id: int
    code: int


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The peer takes no new streams; ``graceful`` if those that are open may finish."""

    code: int
    reason: str
    graceful: bool


Event: TypeAlias = SettingsReceived | HeadersReceived | Data | Ended | Reset | GoingAway
