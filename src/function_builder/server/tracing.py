"""The trace that a request belongs to, after W3C's Trace Context."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Self

from function_builder.builds.phases import Measures

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)

_TRACESTATE: Final = re.compile(r"[ -~]{1,512}")
"""The characters that every vendor must accept; gRPC metadata cannot contain others."""


@dataclass(slots=True)
class Trace:
    """A trace that a request is a part of.

    Attributes:
        id: 32 hexadecimal digits; empty without a trace.
        headers: `traceparent`, and `tracestate` if there is one, for other services.
        outcome: how the request ended; set before the block ends.
    """

    id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    outcome: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Read a request's headers; a malformed one counts as absent, as W3C requires."""
        parent = headers.get("traceparent", "").strip()
        match = _TRACEPARENT.fullmatch(parent)
        # Only versions after 00 may have more fields.
        if match is None or (match[2] and parent.startswith("00-")):
            return cls()
        state = headers.get("tracestate", "")
        kept = {"tracestate": state} if _TRACESTATE.fullmatch(state) else {}
        return cls(match[1], {"traceparent": parent, **kept})


Tracing = Callable[[Mapping[str, str], Measures], AbstractContextManager[Trace]]
"""Enters the trace of a request, by its headers; reads its measures when the block ends."""


@contextmanager
def forwarded(headers: Mapping[str, str], _: Measures) -> Iterator[Trace]:
    """Forward the trace of the request's headers to BuildKit."""
    yield Trace.of(headers)
