"""The events of an HTTP/2 connection: the peer's actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "DataReceived",
    "Event",
    "GoAwayReceived",
    "Headers",
    "HeadersReceived",
    "SettingsReceived",
    "StreamEnded",
    "StreamReset",
]

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """The peer has sent its settings."""


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """Headers or trailers of a stream; `opened` if they opened it.

    A long value may be `compression.Coded`.
    """

    stream_id: int
    headers: Headers
    opened: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    """A piece of a stream's body. `size` is its share of the flow-control windows, in bytes."""

    stream_id: int
    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer has half-closed this stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer has reset a stream."""

    stream_id: int
    code: int


@dataclass(frozen=True, slots=True)
class GoAwayReceived:
    """The peer accepts no new streams; `graceful` if open streams may finish."""

    code: int
    reason: str
    graceful: bool


Event: TypeAlias = (
    SettingsReceived | HeadersReceived | DataReceived | StreamEnded | StreamReset | GoAwayReceived
)
