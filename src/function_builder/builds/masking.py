"""Mask build secrets in texts for clients."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from function_builder.builds.encodings import encodings

MIN_MASKED_BYTES: Final = 4
"""The shortest secret that is masked. A shorter one occurs in ordinary text everywhere."""

_MASK = b"***"
_MAX_CHARACTER_BYTES: Final = 4


class Mask:
    """Replaces the values of build secrets by `***`: the leftmost first, and of these the longest.

    A value of many lines is masked line by line, as output shows it, with or without indentation.
    Forms that programs print (`encodings`) are masked too.

    Args:
        secrets: values by their names.
        names: other texts to mask, without other forms.
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
        # A client chooses values and output, and this runs in the event loop. An expression of
        # `re`, which tries one value after the other, took a millisecond for each byte at worst;
        # this automaton takes 20 ns. The library's default may be a DFA, which takes quadratic
        # time to construct.
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
        """Mask a text and cut it after `size` characters, without reading the rest.

        A value at the cut is masked as a whole.
        """
        if len(text) <= size:
            return self.text(text)
        cut = len(text[: size - 1].encode("utf-8", "replace"))
        data = text[: size + self.longest].encode("utf-8", "replace")
        return self.output(self.pieces(data, cut)[0]).decode("utf-8", "replace") + "…"

    def pieces(self, data: bytes, size: int, *, ahead: int = 0) -> list[bytes]:
        """Split output so that no cut is inside a value or, if possible, inside a character.

        Args:
            data: output that does not begin inside a value.
            size: bytes of each piece; a piece that ends in a value contains all of it.
            ahead: the last piece, which may continue, is larger by so many bytes.
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
    """Move a cut inside a UTF-8 character back to the beginning of the character."""
    for place in range(cut, cut - _MAX_CHARACTER_BYTES, -1):
        if data[place] & 0xC0 != 0x80:
            return place
    return cut
