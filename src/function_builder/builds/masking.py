"""Build secrets hidden in what a client is told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from function_builder.builds.encodings import encodings

MIN_MASKED_BYTES: Final = 4
"""A shorter secret is left alone: masking it would shred the log and hide nothing."""

_MASK = b"***"
_MAX_CHARACTER_BYTES: Final = 4


class Mask:
    """Replaces the values of build secrets by `***`: the leftmost first, and of these the longest.

    A value of many lines is masked line by line, since that is how output shows it, and whether or
    not a line keeps its indentation. Of each, forms that programs print are masked too.

    Args:
        secrets: values by their names.
        names: other texts to hide, as they are.
    """

    def __init__(self, secrets: Mapping[str, bytes], names: Iterable[bytes] = ()) -> None:
        parts = {
            part
            for value in secrets.values()
            for line in (value, *re.split(rb"[\r\n]+", value))
            for part in (line, line.strip())
            if len(part) >= MIN_MASKED_BYTES
        }
        needles = parts.union(filter(None, names), encodings(parts))
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

    def beginning(self, text: str, size: int) -> str:
        """Mask a text and cut it after `size` characters; what is far behind costs nothing.

        A value that the cut would part is masked whole.
        """
        if len(text) <= size:
            return self.text(text)
        cut = len(text[: size - 1].encode("utf-8", "replace"))
        data = text[: size + self.longest].encode("utf-8", "replace")
        return self.output(self.pieces(data, cut)[0]).decode("utf-8", "replace") + "…"

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
            if cut <= start:
                cut = start + size  # a character that is larger than a piece
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
