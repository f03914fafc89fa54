r"""Go's regular expressions, as far as patterns of an ignore file can use them.

moby/patternmatcher turns a pattern into a regular expression, and does not escape all special
characters. So `|`, `{2}`, `[^a]` or `\d` in a .dockerignore have Go's (RE2's) meaning.
Python's `re` differs in details, and it backtracks.

Matching follows all possibilities at once (Thompson's construction), one step for each character.
So the time for a path is at most its length times that of the program. Steps are cached, so most
of them are one look-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from aiobuildkit.fsutil.filepath import BadPattern
from aiobuildkit.fsutil.regexp_syntax import Anchor, Characters, Choice, Node, Repeat, parse

__all__ = ["MAX_INSTRUCTIONS", "Regexp"]

MAX_INSTRUCTIONS: Final = 1000
"""The most instructions of one program: about fifty patterns, at worst a millisecond a step."""

_REMEMBERED: Final = 200_000
"""States in the cached steps of one long expression: some 13 MB at worst."""

_REMEMBERED_FOR_EACH: Final = 60
"""Cached steps for each instruction. Many short expressions share the limit on instructions, and so
this one."""

_MATCH: Final = 0
"""The instruction that reports a match."""


@dataclass(frozen=True, slots=True)
class _Consume:
    characters: Characters
    following: int


@dataclass(frozen=True, slots=True)
class _Assert:
    anchor: Anchor
    following: int


@dataclass(frozen=True, slots=True)
class _Split:
    followings: tuple[int, ...]


_Instruction: TypeAlias = _Consume | _Assert | _Split | None
_Step: TypeAlias = tuple[bool, frozenset[int]]


class Regexp:
    """A compiled expression.

    Raises:
        BadPattern: Go refuses the expression, or its program would be too long.
    """

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._program: list[_Instruction] = [None]
        self._start = self._emit(parse(expression), _MATCH)
        self._steps: dict[tuple[frozenset[int], str, str], _Step] = {}

    @property
    def instructions(self) -> int:
        """The length of the program."""
        return len(self._program)

    def search(self, text: str) -> bool:
        """Whether the expression matches anywhere in a text (Go's `MatchString`)."""
        start = frozenset({self._start})
        current = start
        before = ""
        for after in (*text, ""):
            step = self._steps.get((current, before, after))
            if step is None:
                step = self._remember(current, before, after)
            found, following = step
            if found:
                return True
            current = following | start
            before = "a" if _is_word(after) else "."
        return False

    def _remember(self, current: frozenset[int], before: str, after: str) -> _Step:
        instructions = len(self._program)
        if len(self._steps) >= min(
            _REMEMBERED_FOR_EACH * instructions, _REMEMBERED // instructions
        ):
            self._steps.clear()
        step = self._steps[current, before, after] = self._step(current, before, after)
        return step

    def _step(self, current: frozenset[int], before: str, after: str) -> _Step:
        """The step over a character, from the one before it; "" is the start or end of the text."""
        following: set[int] = set()
        seen = set(current)
        waiting = list(current)
        while waiting:
            match self._program[waiting.pop()]:
                case None:
                    return True, frozenset()
                case _Consume(characters, then):
                    if after and ord(after) in characters:
                        following.add(then)
                    continue
                case _Assert(anchor, then):
                    reached: tuple[int, ...] = (then,) if _holds(anchor, before, after) else ()
                case _Split(reached):
                    pass
            waiting += (number for number in reached if number not in seen)
            seen.update(reached)
        return False, frozenset(following)

    def _emit(self, node: Node, following: int) -> int:
        """Add instructions that match a node and continue at one; return the first's number."""
        match node:
            case Characters():
                return self._add(_Consume(node, following))
            case Anchor():
                return self._add(_Assert(node, following))
            case Choice(nodes):
                return self._add(_Split(tuple(self._emit(each, following) for each in nodes)))
            case Repeat():
                return self._emit_repeat(node, following)
            case _:
                for each in reversed(node.nodes):
                    following = self._emit(each, following)
                return following

    def _emit_repeat(self, repeat: Repeat, following: int) -> int:
        start = following
        if repeat.most is None:
            start = self._add(None)
            again = self._emit(repeat.node, start)
            self._program[start] = _Split((again, following))
        else:
            for _ in range(repeat.most - repeat.least):
                start = self._add(_Split((self._emit(repeat.node, start), following)))
        for _ in range(repeat.least):
            start = self._emit(repeat.node, start)
        return start

    def _add(self, instruction: _Instruction) -> int:
        if len(self._program) == MAX_INSTRUCTIONS:
            raise BadPattern("pattern too long", self._expression)
        self._program.append(instruction)
        return len(self._program) - 1


def _is_word(char: str) -> bool:
    return char.isascii() and (char.isalnum() or char == "_")


def _holds(anchor: Anchor, before: str, after: str) -> bool:
    match anchor:
        case Anchor.BEGIN:
            return not before
        case Anchor.END:
            return not after
        case Anchor.BOUNDARY:
            return _is_word(before) is not _is_word(after)
        case Anchor.NO_BOUNDARY:
            return _is_word(before) is _is_word(after)
