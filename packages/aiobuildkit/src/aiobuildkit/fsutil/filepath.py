"""Paths and globs as BuildKit reads them: Go's `path/filepath` on unix."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["BadPattern", "Glob", "clean"]


_SHOWN: Final = 100


class BadPattern(ValueError):
    """A pattern is malformed, or too costly.

    Attributes:
        reason: why; `str()` also contains the beginning of the pattern.
        pattern: the whole pattern.
    """

    def __init__(self, reason: str, pattern: str) -> None:
        super().__init__(f"{reason}: {pattern[:_SHOWN]}")
        self.reason = reason
        self.pattern = pattern


def clean(path: str) -> str:
    """The shortest equivalent path: `filepath.Clean`."""
    cleaned = posixpath.normpath(path)
    # In POSIX two leading slashes have a meaning; in Go they do not.
    return cleaned[1:] if cleaned.startswith("//") else cleaned


@dataclass(frozen=True, slots=True)
class _Class:
    """The characters of a bracket expression."""

    negated: bool
    ranges: tuple[tuple[str, str], ...]

    def __contains__(self, char: str) -> bool:
        return any(low <= char <= high for low, high in self.ranges) is not self.negated


class _Any:
    """`?`: any character of a name."""

    def __contains__(self, char: str) -> bool:
        return char != "/"


_ANY: Final = _Any()
_Token: TypeAlias = _Class | _Any | str


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One star or more, and the text up to the next star."""

    star: bool
    tokens: tuple[_Token, ...]
    malformed: bool


class Glob:
    """A pattern of `filepath.Match`, for single names.

    Matching takes at most time proportional to the product of both lengths. A star uses the first
    place where the text after it matches, because the next star can match all text before a later
    place.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._chunks = [_parse_chunk(chunk[0]) for chunk in _CHUNK.finditer(pattern)]

    def matches(self, name: str) -> bool:
        """Whether the whole of a name matches; a name has no slash.

        Raises:
            BadPattern: the pattern is malformed. As in Go, this is not noticed if the name differs
                before the last star in front of the mistake.
        """
        position = 0
        for number, chunk in enumerate(self._chunks, 1):
            if chunk.malformed:
                raise BadPattern("syntax error in pattern", self._pattern)
            last = number == len(self._chunks)
            furthest = len(name) - len(chunk.tokens)
            if last and chunk.star:
                position = max(position, furthest)
            while not _fits(chunk.tokens, name, position):
                position += 1
                if not chunk.star or position > furthest:
                    return False
            position += len(chunk.tokens)
        return position == len(name)


# One star or more, and the text up to the next star outside brackets.
_CHUNK: Final = re.compile(
    r"""
    (?=.) \** (?: \\. | \\\Z | [^*\[\\] | \[ (?: \\. | \\\Z | [^\]\\] )* )*
    """,
    re.VERBOSE | re.DOTALL,
)


def _fits(tokens: tuple[_Token, ...], name: str, position: int) -> bool:
    part = name[position : position + len(tokens)]
    return len(part) == len(tokens) and all(
        char in token for token, char in zip(tokens, part, strict=True)
    )


def _parse_chunk(chunk: str) -> _Chunk:
    text = chunk.lstrip("*")
    star = text != chunk
    tokens: list[_Token] = []
    position = 0
    try:
        while position < len(text):
            token, position = _parse_token(text, position)
            tokens.append(token)
    except IndexError:
        return _Chunk(star, (), malformed=True)
    return _Chunk(star, tuple(tokens), malformed=False)


def _parse_token(chunk: str, position: int) -> tuple[_Token, int]:
    match chunk[position]:
        case "[":
            return _parse_class(chunk, position + 1)
        case "?":
            return _ANY, position + 1
        case "\\":
            return chunk[position + 1], position + 2
        case char:
            return char, position + 1


def _parse_class(chunk: str, position: int) -> tuple[_Class, int]:
    negated = chunk[position] == "^"
    position += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and chunk[position] == "]"):
        low, position = _parse_bound(chunk, position)
        high = low
        if chunk[position] == "-":
            high, position = _parse_bound(chunk, position + 1)
        ranges.append((low, high))
    return _Class(negated, tuple(ranges)), position + 1


def _parse_bound(chunk: str, position: int) -> tuple[str, int]:
    if chunk[position] in "-]":
        raise IndexError
    position += chunk[position] == "\\"
    return chunk[position], position + 1
