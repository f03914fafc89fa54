"""Compute the length of a Dockerfile's word after BuildKit has expanded its variables.

Only the lengths of the values are known. The result is an upper bound.
Source: BuildKit, `frontend/dockerfile/shell/lex.go`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

DEEPEST: Final = 50
"""The most nested substitutions, such as `${A:-${B:-…}}`."""

_ENOUGH: Final = 32 << 20
"""The length at which reading stops, because the word is already too long."""

_ENDLESS: Final = 1 << 40
"""The largest length; without it, lengths would grow with the number of lines."""

_SPECIAL_NAMES: Final = "@*#?-$!"

Value: TypeAlias = Callable[[str], int]
"""The length of a variable."""


class Stopped(Exception):
    """BuildKit would stop here, because a quote or a brace has no end; or the word is too long."""


class TooDeep(Exception):
    """There are more nested substitutions than allowed."""


class Word:
    """BuildKit's lexer of one word, which computes its length.

    Args:
        text: the word.
        escape: the character that escapes another one.
        value: the length of a variable.
        quotes: whether quotes have a meaning.

    Attributes:
        expanded: the length so far.
    """

    def __init__(self, text: str, escape: str, value: Value, *, quotes: bool) -> None:
        self._text = text
        self._escape = escape
        self._value = value
        self._quotes = quotes
        self._at = 0
        self._depth = 0
        self.expanded = 0

    def length(self) -> int:
        """Compute it, once.

        Raises:
            Stopped: see there.
            TooDeep: see there.
        """
        return self._until("")

    def _until(self, stop: str) -> int:
        """The length up to and including a character; without one, up to the end."""
        text, length = self._text, 0
        special = re.compile(f"[{re.escape(stop + self._escape)}$'\"]")
        while found := special.search(text, self._at):
            length += found.start() - self._at
            self._at = found.end()
            match found[0]:
                case char if char == stop:
                    return length
                case "$":
                    length += self._dollar()
                case char if char == self._escape:
                    length += 2
                    self._at += 1
                case "'" if self._quotes:
                    end = self._index("'")
                    # In a pattern, BuildKit doubles the escapes.
                    length += end - self._at + 2 + text.count(self._escape, self._at, end)
                    self._at = end + 1
                case '"' if self._quotes:
                    length += self._double_quoted()
                case _:
                    length += 1
        if stop:
            raise Stopped
        length += max(0, len(text) - self._at)
        self._at = len(text)
        return length

    def _double_quoted(self) -> int:
        length = 2
        special = re.compile(f'["${re.escape(self._escape)}]')
        while found := special.search(self._text, self._at):
            length += found.end() - self._at
            self._at = found.end()
            if found[0] == '"':
                return length
            if found[0] == "$":
                length += self._dollar()
            else:
                # With what it escapes; or else doubled, in a pattern.
                length += 1
                self._at += self._text[self._at : self._at + 1] in ('"', "$", self._escape)
        raise Stopped

    def _dollar(self) -> int:
        """The length of `$name`, `${name}` or a substitution, after its `$`."""
        if self._peek() != "{":
            name = self._name()
            return self._expanded(1 + len(name) + (self._value(name) if name else 0))
        self._at += 1
        if self._peek() in ("", "{", "}", ":"):
            raise Stopped
        self._depth += 1
        if self._depth > DEEPEST:
            raise TooDeep
        name = self._name()
        # A variable without a value may stay unexpanded.
        length = len(name) + 3 + self._substitution(self._value(name))
        self._depth -= 1
        return self._expanded(min(length, _ENDLESS))

    def _expanded(self, length: int) -> int:
        self.expanded += length
        if self.expanded > _ENOUGH:
            raise Stopped
        return length

    def _substitution(self, value: int) -> int:
        kind = self._next()
        if kind == "}":
            return value
        if kind == ":":
            kind = self._next()
        if kind == "/":
            each = self._peek() == "/"
            self._at += each
            pattern = self._until("/")
            replacement = self._until("}")
            # An empty pattern matches before and after each character. In the replacement, `$0` is
            # # the match; all matches together are not longer than the value.
            most = (value + 1) * replacement + value * replacement // 2 if each else replacement
            return value + pattern + most
        if kind and kind in "+-?#%":
            return value + self._until("}")
        raise Stopped

    def _name(self) -> str:
        begin = self._at
        if self._peek().isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        elif self._peek() and self._peek() in _SPECIAL_NAMES:
            self._at += 1
        else:
            while (char := self._peek()).isalpha() or char.isdecimal() or char == "_":
                self._at += 1
        return self._text[begin : self._at]

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        self._at += 1
        return self._text[self._at - 1 : self._at]

    def _index(self, char: str) -> int:
        end = self._text.find(char, self._at)
        if end < 0:
            raise Stopped
        return end
