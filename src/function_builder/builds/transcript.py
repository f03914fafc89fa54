"""BuildKit's status events as the contract's log lines.

`v: <time> <vertex name>[ <seconds>s]`, `s: <time> <status id> <current>`, `l: <time> <output>`;
times are RFC 3339 in UTC, to the second.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from aiobuildkit import StatusEvent, Vertex, VertexLog, VertexStatus
from function_builder.contract.log import LogPrefixes

MAX_LINE_BYTES: Final = 32 * 1024
"""Output without a line's end is cut after this many bytes; a reply's line holds them even where
JSON escapes some."""

MIN_MASKED_BYTES: Final = 4
"""A shorter secret is left alone: masking it would shred the log and hide nothing."""

_MASK = b"***"
_MAX_CHARACTER_BYTES: Final = 4
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class Mask:
    """Replaces the values of build secrets by `***`: the leftmost first, and of these the longest.

    A value of many lines is masked line by line, since that is how output shows it, and whether or
    not a line keeps its indentation.
    """

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        needles = {
            part
            for value in secrets.values()
            for line in (value, *re.split(rb"[\r\n]+", value))
            for part in (line, line.strip())
            if len(part) >= MIN_MASKED_BYTES
        }
        self.longest = max(map(len, needles), default=0)
        # Values and output may be made to fit each other badly, and this runs in the event loop:
        # an expression of `re`, which tries one needle after the other, took a millisecond a byte.
        # This automaton takes some 20 ns at worst. Not the library's own choice of one: it may be
        # a DFA, whose making takes the square of a value's length.
        self._automaton = BytesAhoCorasick(
            needles, MatchKind.LeftmostLongest, Implementation.ContiguousNFA
        )

    def output(self, data: bytes) -> bytes:
        """Mask output."""
        parts, done = [], 0
        for start, end in self._spans(data):
            parts += [data[done:start], _MASK]
            done = end
        return b"".join([*parts, data[done:]]) if parts else data

    def text(self, text: str) -> str:
        """Mask a name or an error."""
        if not self.longest:
            return text
        return self.output(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def pieces(self, data: bytes, size: int, *, ahead: int = 0) -> list[bytes]:
        """Part output so that no cut is within a value nor, where it can be helped, a character.

        Args:
            data: begins where no value is cut.
            size: bytes of each piece; one that ends in a value has all of it.
            ahead: the last piece, whose end is not yet known, is so many bytes larger.
        """
        pieces, start = [], 0
        spans = iter(self._spans(data) if len(data) > size + ahead else ())
        begin = end = 0
        while len(data) - start > size + ahead:
            cut = _between_characters(data, start + size)
            while end <= cut and (span := next(spans, None)):
                begin, end = span
            if begin < cut < end:
                cut = end
            pieces.append(data[start:cut])
            start = cut
        return [*pieces, data[start:]]

    def _spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        if not self.longest:
            return iter(())
        found = self._automaton.find_matches_as_indexes(data)
        return ((start, end) for _, start, end in found)


def _between_characters(data: bytes, cut: int) -> int:
    """Move a cut back to the beginning of a character of UTF-8, if it is in one."""
    for place in range(cut, cut - _MAX_CHARACTER_BYTES, -1):
        if data[place] & 0xC0 != 0x80:
            return place
    return cut


class Transcript:
    """Turns events into lines; holds back the unfinished line of each vertex's output.

    Args:
        mask: hides secrets, in output, in names and in ids.
        prefixes: what precedes the text of each line.
    """

    def __init__(self, mask: Mask, *, prefixes: LogPrefixes) -> None:
        self._mask = mask
        self._prefixes = prefixes
        self._partial: dict[tuple[str, int], bytearray] = {}

    def lines(self, event: StatusEvent) -> list[str]:
        """The lines that an event adds to the log."""
        lines = [self._vertex(vertex) for vertex in event.vertexes]
        lines += [self._status(status) for status in event.statuses]
        for log in event.logs:
            lines += self._output(log)
        for vertex in event.vertexes:
            if vertex.completed is not None:
                lines += self._flush(key for key in list(self._partial) if key[0] == vertex.digest)
        return lines

    def rest(self) -> list[str]:
        """The unfinished lines, when nothing follows."""
        return self._flush(list(self._partial))

    def note(self, text: str) -> str:
        """A line of our own."""
        return self._line("l", None, text)

    def _vertex(self, vertex: Vertex) -> str:
        text = self._mask.text(vertex.name)
        if vertex.started is not None and vertex.completed is not None:
            text += f" {max(vertex.completed - vertex.started, 0) / 1e9:.2f}s"
        return self._line("v", vertex.started, text)

    def _status(self, status: VertexStatus) -> str:
        return self._line("s", status.timestamp, f"{self._mask.text(status.id)} {status.current}")

    def _output(self, log: VertexLog) -> Iterator[str]:
        key = (log.vertex, log.stream)
        held = self._partial.setdefault(key, bytearray())
        # Only what is new is looked through, or a line that comes byte by byte would cost its
        # length squared; but a \r at the end may have been half of a line's end.
        searched = max(len(held) - 1, 0)
        held += log.data
        start = 0
        for end in list(_LINE_END.finditer(held, searched)):
            yield from self._pieces(bytes(held[start : end.start()]), log.timestamp)
            start = end.end()
        del held[:start]
        # What may be the beginning of a secret stays behind until its end is known.
        if len(held) > MAX_LINE_BYTES + self._mask.longest:
            *pieces, held[:] = self._mask.pieces(
                bytes(held), MAX_LINE_BYTES, ahead=self._mask.longest
            )
            for piece in pieces:
                yield self._text(piece, log.timestamp)
        if not held:
            del self._partial[key]

    def _pieces(self, line: bytes, timestamp: int | None) -> Iterator[str]:
        for piece in self._mask.pieces(line, MAX_LINE_BYTES):
            yield self._text(piece, timestamp)

    def _text(self, line: bytes, timestamp: int | None) -> str:
        return self._line("l", timestamp, self._mask.output(line).decode("utf-8", "replace"))

    def _flush(self, keys: Iterable[tuple[str, int]]) -> list[str]:
        rests = [bytes(self._partial.pop(key)).removesuffix(b"\r") for key in list(keys)]
        return [line for rest in rests for line in self._pieces(rest, None)]

    def _line(self, kind: str, timestamp: int | None, text: str) -> str:
        if self._prefixes is LogPrefixes.NONE:
            return text
        seconds = int(time.time()) if timestamp is None else timestamp // 10**9
        line = f"{_rfc3339(seconds)} {text}"
        return line if self._prefixes is LogPrefixes.TIME else f"{kind}: {line}"


@lru_cache(maxsize=64)
def _rfc3339(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
