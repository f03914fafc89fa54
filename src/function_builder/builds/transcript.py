"""BuildKit's status events as the contract's log lines.

`v: <time> <vertex name>[ <seconds>s]`, `s: <time> <status id> <current>`, `l: <time> <output>`;
times are RFC 3339 in UTC, to the second.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import groupby
from typing import Final

from aiobuildkit import StatusEvent, Vertex, VertexLog, VertexStatus

MAX_LINE_BYTES: Final = 32 * 1024
"""Output without a line's end is cut after this many bytes; a reply's line holds them even where
JSON escapes some."""

MIN_MASKED_BYTES: Final = 4
"""A shorter secret is left alone: masking it would shred the log and hide nothing."""

_MASK = b"***"
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class Mask:
    """Replaces the values of build secrets by `***`.

    A value of many lines is masked line by line, since that is how output shows it.
    """

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        needles = {
            part
            for value in secrets.values()
            for part in (value, value.strip(), *re.split(rb"[\r\n]+", value))
            if len(part) >= MIN_MASKED_BYTES
        }
        self.longest = max(map(len, needles), default=0)
        self._pattern = re.compile(_any_of(needles, MIN_MASKED_BYTES)) if needles else None

    def output(self, data: bytes) -> bytes:
        """Mask output."""
        return self._pattern.sub(_MASK, data) if self._pattern else data

    def text(self, text: str) -> str:
        """Mask a name or an error."""
        if self._pattern is None:
            return text
        return self.output(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def safe_cut(self, data: bytes, cut: int) -> int:
        """Move a cut so that it parts neither a value nor, where it can be helped, a character."""
        while cut and data[cut] & 0xC0 == 0x80:
            cut -= 1
        if self._pattern:
            for match in self._pattern.finditer(data, 0, cut + self.longest):
                if match.start() < cut < match.end():
                    return match.end()
        return cut


def _any_of(needles: Collection[bytes], shared: int) -> bytes:
    """An expression for any of the needles, the longest that fits.

    Python tries the branches of an expression one by one, at each byte of output: of a thousand
    needles in a row, 1.7 µs. As a tree of their first bytes it is 0.15 µs.

    Args:
        needles: none is empty but at the tree's leaves.
        shared: how many of their first bytes make the tree.
    """
    if not shared or len(needles) == 1:
        # A value that holds another is hidden whole.
        return b"|".join(map(re.escape, sorted(needles, key=len, reverse=True)))
    branches = []
    for first, group in groupby(sorted(needles), key=lambda needle: needle[:1]):
        rest = _any_of([needle[1:] for needle in group], shared - 1)
        branches.append(b"%b(?:%b)" % (re.escape(first), rest))
    return b"|".join(branches)


class Transcript:
    """Turns events into lines; holds back the unfinished line of each vertex's output.

    Args:
        mask: hides secrets, in output, in names and in ids.
        prefixes: whether lines begin with their kind and time.
    """

    def __init__(self, mask: Mask, *, prefixes: bool) -> None:
        self._mask = mask
        self._prefixes = prefixes
        self._partial: dict[tuple[str, int], bytes] = {}

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
        *whole, rest = _LINE_END.split(self._partial.pop(key, b"") + log.data)
        for line in whole:
            yield from self._pieces(line, log.timestamp)
        # What may be the beginning of a secret stays behind until its end is known.
        while len(rest) > MAX_LINE_BYTES + self._mask.longest:
            cut = self._mask.safe_cut(rest, MAX_LINE_BYTES)
            yield self._text(rest[:cut], log.timestamp)
            rest = rest[cut:]
        if rest:
            self._partial[key] = rest

    def _pieces(self, line: bytes, timestamp: int | None) -> Iterator[str]:
        while len(line) > MAX_LINE_BYTES:
            cut = self._mask.safe_cut(line, MAX_LINE_BYTES)
            yield self._text(line[:cut], timestamp)
            line = line[cut:]
        yield self._text(line, timestamp)

    def _text(self, line: bytes, timestamp: int | None) -> str:
        return self._line("l", timestamp, self._mask.output(line).decode("utf-8", "replace"))

    def _flush(self, keys: Iterable[tuple[str, int]]) -> list[str]:
        return [self._text(self._partial.pop(key).removesuffix(b"\r"), None) for key in list(keys)]

    def _line(self, kind: str, timestamp: int | None, text: str) -> str:
        if not self._prefixes:
            return text
        seconds = int(time.time()) if timestamp is None else timestamp // 10**9
        return f"{kind}: {_rfc3339(seconds)} {text}"


@lru_cache(maxsize=64)
def _rfc3339(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
