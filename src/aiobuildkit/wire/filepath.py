"""What BuildKit's side means by paths and globs: Go's ``path/filepath`` on unix."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["BadPattern", "Glob", "clean"]


class BadPattern(ValueError):
    """A pattern is malformed, or would cost more than is allowed; the text says which."""


def clean(path: str) -> str:
    """The shortest equivalent path: ``filepath.Clean``."""
    cleaned = posixpath.normpath(path)
    # POSIX gives two leading slashes a meaning; Go does not.
    return cleaned[1:] if cleaned.startswith("//") else cleaned


@dataclass(frozen=True, slots=True)
class _Class:
    """The characters of a bracket expression."""

    negated: bool
    ranges: tuple[tuple[str, str], ...]

    def __contains__(self, char: str) -> bool:
        return any(low <= char <= high for low, high in self.ranges) is not self.negated


class _Any:
    """``?``: any character of a name."""

    def __contains__(self, char: str) -> bool:
        return char != "/"


class _Star:
    """``*``: any characters of a name."""


_ANY = _Any()
_STAR = _Star()
_Token: TypeAlias = _Class | _Any | _Star | str


class Glob:
    """A pattern of ``filepath.Match``, for single names.

    A name is matched in time proportional to the product of both lengths, whatever the pattern:
    only the last star passed is ever tried again.

    Raises:
        BadPattern: the pattern is malformed.
    """

    def __init__(self, pattern: str) -> None:
        self._tokens = _parse(pattern)

    def matches(self, name: str) -> bool:
        """Whether the whole of a name matches; a name has no slash."""
        tokens, position, token = self._tokens, 0, 0
        star, resume = -1, 0
        while position < len(name):
            if token < len(tokens) and tokens[token] is _STAR:
                star, resume = token, position
                token += 1
            elif token < len(tokens) and _accepts(tokens[token], name[position]):
                token += 1
                position += 1
            elif star >= 0:
                resume += 1
                token, position = star + 1, resume
            else:
                return False
        return all(rest is _STAR for rest in tokens[token:])


def _accepts(token: _Token, char: str) -> bool:
    return not isinstance(token, _Star) and char in token


def _parse(pattern: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        match char:
            case "*":
                if not tokens or tokens[-1] is not _STAR:
                    tokens.append(_STAR)
            case "?":
                tokens.append(_ANY)
            case "[":
                bracket, position = _parse_class(pattern, position)
                tokens.append(bracket)
            case "\\":
                if position == len(pattern):
                    raise _malformed(pattern)
                tokens.append(pattern[position])
                position += 1
            case _:
                tokens.append(char)
    return tokens


def _parse_class(pattern: str, position: int) -> tuple[_Class, int]:
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern.startswith("]", position)):
        low, position = _parse_bound(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _parse_bound(pattern, position + 1)
        ranges.append((low, high))
    return _Class(negated, tuple(ranges)), position + 1


def _parse_bound(pattern: str, position: int) -> tuple[str, int]:
    if pattern.startswith(("-", "]"), position):
        raise _malformed(pattern)
    position += pattern.startswith("\\", position)
    # The bracket that closes the class has still to come.
    if position + 1 >= len(pattern):
        raise _malformed(pattern)
    return pattern[position], position + 1


def _malformed(pattern: str) -> BadPattern:
    return BadPattern(f"syntax error in pattern: {pattern}")
