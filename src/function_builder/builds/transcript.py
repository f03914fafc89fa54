"""BuildKit's status events as the contract's log lines.

`v: <time> <vertex name>[ <seconds>s]`, `s: <time> <status id> <current>`, `l: <time> <output>`;
times are RFC 3339 in UTC, to the second.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from aiobuildkit import StatusEvent, Vertex, VertexLog, VertexStatus
from function_builder.builds.findings import Findings, is_cancellation
from function_builder.builds.masking import Mask
from function_builder.contract.log import LogPrefixes, StepState, StepText

MAX_LINE_BYTES: Final = 32 * 1024
"""Output without a line end is cut after this many bytes, which fit into a line of the reply even
with JSON escapes. Names of steps have at most as many characters; an ARG can make them long."""

_MAX_LINE_CHARS: Final = MAX_LINE_BYTES

_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class Transcript:
    """Turns events into lines, and buffers the incomplete line of each vertex's output.

    Args:
        mask: hides secrets in output, names and IDs.
        prefixes: the beginning of each line.

    Attributes:
        findings: warnings and failed steps in the events.
    """

    def __init__(self, mask: Mask, *, prefixes: LogPrefixes) -> None:
        self._mask = mask
        self._prefixes = prefixes
        self._partial: dict[tuple[str, int], bytearray] = {}
        self._numbers: dict[str, int] = {}
        self.findings = Findings(mask)

    def lines(self, event: StatusEvent) -> list[str]:
        """The log lines of an event."""
        lines = [self._vertex(vertex) for vertex in event.vertexes]
        lines += [self._status(status) for status in event.statuses]
        for log in event.logs:
            lines += self._output(log)
        for vertex in event.vertexes:
            if vertex.completed is not None:
                lines += self._flush(key for key in list(self._partial) if key[0] == vertex.digest)
        lines += [self.note(f"WARNING: {warning}") for warning in self.findings.observe(event)]
        return lines

    def rest(self) -> list[str]:
        """The incomplete lines, at the end."""
        return self._flush(list(self._partial))

    def note(self, text: str) -> str:
        """A line of the builder itself."""
        return self._line("l", None, text)

    def _vertex(self, vertex: Vertex) -> str:
        text = self._mask.beginning(vertex.name, MAX_LINE_BYTES)
        if vertex.started is not None and vertex.completed is not None:
            text += f" {max(vertex.completed - vertex.started, 0) / 1e9:.2f}s"
        line = self._line("v", vertex.started, text)
        return StepText(line, f"{self._number(vertex.digest)} {_state(vertex)}")

    def _status(self, status: VertexStatus) -> str:
        text = f"{self._mask.beginning(status.id, MAX_LINE_BYTES)} {status.current}"
        state = StepState.MOVING if status.completed is None else StepState.MOVED
        line = self._line("s", status.timestamp, text)
        return StepText(line, f"{self._number(status.vertex)} {state}")

    def _number(self, vertex: str) -> int:
        return self._numbers.setdefault(vertex, len(self._numbers) + 1)

    def _output(self, log: VertexLog) -> Iterator[str]:
        key = (log.vertex, log.stream)
        held = self._partial.setdefault(key, bytearray())
        # Only new data is searched. Otherwise a line that arrives byte by byte would take quadratic
        # time. But a \r at the end may be half of a line end.
        searched = max(len(held) - 1, 0)
        held += log.data
        start = 0
        for end in list(_LINE_END.finditer(held, searched)):
            line = bytes(held[start : end.start()])
            yield from self._pieces(log.vertex, line, log.timestamp)
            start = end.end()
        del held[:start]
        # Data that may be the beginning of a secret stays buffered until its end is known.
        if len(held) > MAX_LINE_BYTES + self._mask.longest:
            *pieces, held[:] = self._mask.pieces(
                bytes(held), MAX_LINE_BYTES, ahead=self._mask.longest
            )
            for piece in pieces:
                yield self._text(log.vertex, piece, log.timestamp)
        if not held:
            del self._partial[key]

    def _pieces(self, vertex: str, line: bytes, timestamp: int | None) -> Iterator[str]:
        for piece in self._mask.pieces(line, MAX_LINE_BYTES):
            yield self._text(vertex, piece, timestamp)

    def _text(self, vertex: str, line: bytes, timestamp: int | None) -> str:
        text = self._mask.output(line).decode("utf-8", "replace")
        return StepText(self._line("l", timestamp, text), str(self._number(vertex)))

    def _flush(self, keys: Iterable[tuple[str, int]]) -> list[str]:
        return [
            line
            for key in list(keys)
            for line in self._pieces(
                key[0], bytes(self._partial.pop(key)).removesuffix(b"\r"), None
            )
        ]

    def _line(self, kind: str, timestamp: int | None, text: str) -> str:
        if len(text) > _MAX_LINE_CHARS:
            # The name of a step, which a Dockerfile's arguments can make megabytes long.
            text = text[:_MAX_LINE_CHARS] + "…"
        if self._prefixes is LogPrefixes.NONE:
            return text
        seconds = int(time.time()) if timestamp is None else timestamp // 10**9
        line = f"{_rfc3339(seconds)} {text}"
        return line if self._prefixes is LogPrefixes.TIME else f"{kind}: {line}"


def _state(vertex: Vertex) -> StepState:
    if vertex.error:
        return StepState.CANCELLED if is_cancellation(vertex.error) else StepState.FAILED
    if vertex.completed is not None:
        return StepState.CACHED if vertex.cached else StepState.COMPLETED
    return StepState.ANNOUNCED if vertex.started is None else StepState.STARTED


@lru_cache(maxsize=64)
def _rfc3339(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
