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
"""What every vendor must be able to pass along; gRPC metadata takes no other characters."""


@dataclass(slots=True)
class Trace:
    """A trace that a request is a part of.

    Attributes:
        id: 32 hexadecimal digits; empty where there is no trace.
        headers: what joins others to it: `traceparent`, and `tracestate` where there is one.
        outcome: how the request ended, said before the trace is left.
    """

    id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    outcome: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Read a request's headers; what is malformed is taken for absent, as W3C says."""
        parent = headers.get("traceparent", "").strip()
        match = _TRACEPARENT.fullmatch(parent)
        # Only later versions than 00 may have more to say.
        if match is None or (match[2] and parent.startswith("00-")):
            return cls()
        state = headers.get("tracestate", "")
        kept = {"tracestate": state} if _TRACESTATE.fullmatch(state) else {}
        return cls(match[1], {"traceparent": parent, **kept})


Tracing = Callable[[Mapping[str, str], Measures], AbstractContextManager[Trace]]
"""Enters the trace of a request, by its headers; its measures are read when it is left."""


@contextmanager
def handed_on(headers: Mapping[str, str], _: Measures) -> Iterator[Trace]:
    """A trace that others tell of: what came in goes on to BuildKit."""
    yield Trace.of(headers)
