r"""The syntax of Go's regular expressions, as far as patterns of an ignore file can use it.

Source: Go's `regexp/syntax/parse.go` with its Perl flags. Flags and named groups are not
supported, because moby escapes their parentheses. Unicode classes (`\p{Greek}`) are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from aiobuildkit.fsutil.filepath import BadPattern

__all__ = ["Anchor", "Characters", "Choice", "Node", "Repeat", "Sequence", "parse"]

_GREATEST_REPEAT: Final = 1000
"""Go's limit for the numbers in `x{n,m}`."""

_LAST: Final = 0x10FFFF
_DIGITS: Final = ((0x30, 0x39),)
_WORD: Final = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Final = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
_PERL: Final = {"d": _DIGITS, "s": _SPACE, "w": _WORD}
_POSIX: Final = {
    "alnum": ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)),
    "alpha": ((0x41, 0x5A), (0x61, 0x7A)),
    "ascii": ((0x00, 0x7F),),
    "blank": ((0x09, 0x09), (0x20, 0x20)),
    "cntrl": ((0x00, 0x1F), (0x7F, 0x7F)),
    "digit": _DIGITS,
    "graph": ((0x21, 0x7E),),
    "lower": ((0x61, 0x7A),),
    "print": ((0x20, 0x7E),),
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((0x09, 0x0D), (0x20, 0x20)),
    "upper": ((0x41, 0x5A),),
    "word": _WORD,
    "xdigit": ((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)),
}
_CONTROLS: Final = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}

_Ranges: TypeAlias = tuple[tuple[int, int], ...]


class Anchor(Enum):
    """A condition between two characters."""

    BEGIN = auto()
    END = auto()
    BOUNDARY = auto()
    NO_BOUNDARY = auto()


@dataclass(frozen=True, slots=True)
class Characters:
    """One character of these ranges of code points."""

    ranges: _Ranges

    def __contains__(self, code: int) -> bool:
        return any(low <= code <= high for low, high in self.ranges)


@dataclass(frozen=True, slots=True)
class Repeat:
    """A repeated node; `most` is None without a limit."""

    node: Node
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Sequence:
    """Nodes one after the other."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Any one of the nodes."""

    nodes: tuple[Node, ...]


Node: TypeAlias = Characters | Anchor | Repeat | Sequence | Choice


_END_OF_TEXT: Final = ""
_COUNT: Final = re.compile(r"\{(0|[1-9][0-9]*)(?:(,)(0|[1-9][0-9]*)?)?\}")
_SUFFIX_REPEATS: Final = {"*": (0, None), "?": (0, 1)}
_ANCHORS: Final = {
    "A": Anchor.BEGIN,
    "z": Anchor.END,
    "b": Anchor.BOUNDARY,
    "B": Anchor.NO_BOUNDARY,
}


def parse(expression: str) -> Node:
    """Parse an expression.

    Raises:
        BadPattern: Go refuses it, or it has a Unicode class.
    """
    return _Parser(expression).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def parse(self) -> Node:
        node = self._choice()
        if self._position != len(self._text):
            raise self._malformed()
        return node

    def _peek(self) -> str:
        return self._text[self._position : self._position + 1]

    def _next(self) -> str:
        if self._position == len(self._text):
            raise self._malformed()
        self._position += 1
        return self._text[self._position - 1]

    def _skip(self, text: str) -> bool:
        found = self._text.startswith(text, self._position)
        if found:
            self._position += len(text)
        return found

    def _malformed(self) -> BadPattern:
        return BadPattern("syntax error in pattern", self._text)

    def _choice(self) -> Node:
        branches = [self._sequence()]
        while self._skip("|"):
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _sequence(self) -> Node:
        nodes: list[Node] = []
        repeated = False
        while self._peek() not in {_END_OF_TEXT, "|", ")"}:
            bounds = self._repeat()
            if bounds is None:
                nodes += self._atom()
            elif repeated or not nodes:
                # Go refuses x** and a repeat without an operand.
                raise self._malformed()
            else:
                nodes[-1] = Repeat(nodes[-1], *bounds)
            repeated = bounds is not None
        return Sequence(tuple(nodes))

    def _repeat(self) -> tuple[int, int | None] | None:
        if (bounds := _SUFFIX_REPEATS.get(self._peek())) is not None:
            self._position += 1
            return bounds
        count = _COUNT.match(self._text, self._position)
        if count is None:
            return None
        self._position = count.end()
        least = int(count[1])
        most = int(count[3]) if count[3] else None if count[2] else least
        if max(least, most or 0) > _GREATEST_REPEAT or (most is not None and least > most):
            raise self._malformed()
        return least, most

    def _atom(self) -> list[Node]:
        char = self._next()
        if (fixed := _FIXED.get(char)) is not None:
            return [fixed]
        match char:
            case "(":
                group = self._choice()
                if not self._skip(")"):
                    raise self._malformed()
                return [group]
            case "[":
                return [self._class()]
            case "\\":
                return self._escape()
            case _:
                return [_literal(char)]

    def _escape(self) -> list[Node]:
        if self._skip("Q"):
            quoted, _, _ = self._text[self._position :].partition("\\E")
            self._position += len(quoted)
            self._skip("\\E")
            return [_literal(char) for char in quoted]
        if (anchor := _ANCHORS.get(self._peek())) is not None:
            self._position += 1
            return [anchor]
        if (ranges := self._perl_class()) is not None:
            return [Characters(ranges)]
        code = self._escaped_code()
        return [Characters(((code, code),))]

    def _perl_class(self) -> _Ranges | None:
        r"""A class such as `\d`, after its backslash."""
        char = self._peek()
        if (ranges := _PERL.get(char.lower())) is None:
            return None
        self._position += 1
        return ranges if char.islower() else _except(ranges).ranges

    def _escaped_code(self) -> int:
        char = self._next()
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char == "x":
            return self._hexadecimal()
        if char == "0" or (char in "1234567" and self._peek() in set("01234567")):
            digits = char
            while len(digits) < 3 and self._peek() in set("01234567"):
                digits += self._next()
            return int(digits, 8)
        if char.isascii() and not char.isalnum():
            return ord(char)
        raise self._malformed()

    def _hexadecimal(self) -> int:
        pattern = r"\{([0-9A-Fa-f]+)\}|([0-9A-Fa-f]{2})"
        digits = re.compile(pattern).match(self._text, self._position)
        if digits is None or (code := int(digits[1] or digits[2], 16)) > _LAST:
            raise self._malformed()
        self._position = digits.end()
        return code

    def _class(self) -> Characters:
        negated = self._skip("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or self._peek() != "]":
            first = False
            ranges += self._class_item()
        self._position += 1
        return _except(tuple(ranges)) if negated else Characters(tuple(ranges))

    def _class_item(self) -> _Ranges:
        if self._text.startswith("[:", self._position) and ":]" in self._text[self._position + 2 :]:
            return self._posix_class()
        if self._text.startswith("\\", self._position):
            self._position += 1
            if (ranges := self._perl_class()) is not None:
                return ranges
            low = self._escaped_code()
        else:
            low = ord(self._next())
        high = low
        following = self._text[self._position : self._position + 2]
        if following.startswith("-") and following not in {"-", "-]"}:
            self._position += 1
            high = self._escaped_code() if self._skip("\\") else ord(self._next())
        if high < low:
            raise self._malformed()
        return ((low, high),)

    def _posix_class(self) -> _Ranges:
        end = self._text.index(":]", self._position + 2)
        name = self._text[self._position + 2 : end]
        self._position = end + 2
        ranges = _POSIX.get(name.removeprefix("^"))
        if ranges is None:
            raise self._malformed()
        return _except(ranges).ranges if name.startswith("^") else ranges


def _literal(char: str) -> Characters:
    return Characters(((ord(char), ord(char)),))


def _except(ranges: _Ranges) -> Characters:
    rest: list[tuple[int, int]] = []
    following = 0
    for low, high in sorted(ranges):
        if following < low:
            rest.append((following, low - 1))
        following = max(following, high + 1)
    if following <= _LAST:
        rest.append((following, _LAST))
    return Characters(tuple(rest))


_FIXED: Final[dict[str, Node]] = {"^": Anchor.BEGIN, "$": Anchor.END, ".": _except(((0x0A, 0x0A),))}
