"""Compute the length of a Dockerfile after BuildKit has expanded its variables.

BuildKit expands variables in its own memory, before any step. `ARG A=$A$A$A…`, tenfold in each
line, turns 300 bytes into gigabytes, and the limits of steps do not apply. So this module computes
the lengths before the build, without the values.

The lengths are upper bounds. Each line may begin an instruction, also in a heredoc. Both escape
characters are tried. Stages share one set of variables, and a variable keeps the greatest length
that it had. So if BuildKit reads a construct differently, the length here is only greater. An
ordinary Dockerfile stays far below the limits.

Sources: BuildKit, `frontend/dockerfile/shell/lex.go`, `parser/parser.go`, `parser/line_parsers.go`
and `dockerfile2llb/convert.go`, where each step gets all variables, and a name with its own
variables expanded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from function_builder.contract.errors import Refusal
from function_builder.policy.words import DEEPEST, Stopped, TooDeep, Word

MAX_VALUE: Final = 128 << 10
"""The most characters of one variable: Linux's limit for programs (MAX_ARG_STRLEN)."""

MAX_INSTRUCTION: Final = 1 << 20
"""The most characters of any other instruction."""

MAX_TOTAL: Final = 32 << 20
"""The most characters of all instructions, with the variables of each RUN step."""

_INHERITED: Final = 128
"""The assumed least length of a variable, because the unknown base image may set it."""

_EACH: Final = 64
"""Characters that each instruction and each line count in addition to their length."""

INSTRUCTIONS: Final = frozenset(
    [
        *("add", "arg", "cmd", "copy", "entrypoint", "env", "expose", "from", "healthcheck"),
        *("label", "maintainer", "onbuild", "run", "shell", "stopsignal", "user", "volume"),
        "workdir",
    ]
)
SPACES: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""White space as in Go's unicode.IsSpace; Python has more."""
_HEAD: Final = re.compile(r"[\t\v\f\r ]+")

_PLAIN_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_HEREDOC: Final = re.compile(rf"<<-?[{SPACES}]*([\"']?)([A-Za-z0-9_]*)(\1(?=[{SPACES}]|$))?")


def refuse_expansion(
    dockerfile: bytes, build_args: Mapping[str, str], platforms: Sequence[str] = ()
) -> None:
    """Refuse a Dockerfile whose variables make it too long.

    Args:
        dockerfile: its bytes.
        build_args: the request's.
        platforms: the request's; BuildKit expands all variables once for each.

    Raises:
        Refusal: 400.
    """
    text = dockerfile.decode("utf-8", "replace")
    if "$" not in text and "\\u0024" not in text:
        return
    copies = max(1, len(set(platforms)))
    for escape in ("\\", "`") if "`" in text else ("\\",):
        _Expansion(build_args, escape, copies).read(text.split("\n"))


class _Expansion:
    """The lengths of one Dockerfile with one escape character."""

    def __init__(self, build_args: Mapping[str, str], escape: str, copies: int) -> None:
        self._build_args = build_args
        self._escape = escape
        self._copies = copies
        self._lengths: dict[str, int] = {}
        self._environment = 0
        # The length set for a name that contains variables, which may be any name.
        self._any = _INHERITED
        self._total = 0
        self._triggers: list[tuple[int, str, str]] = []
        quoted = re.escape(escape)
        self._continuation = re.compile(rf"(?:^|(?<!{quoted})){quoted}[ \t]*\Z")
        self._word = re.compile(
            rf"""(?:{quoted}.|"(?:{quoted}.|[^"{quoted}])*(?:"|$)|'[^']*(?:'|$)|[^{SPACES}])+""",
            re.DOTALL,
        )

    def read(self, lines: Sequence[str]) -> None:
        for number, line in enumerate(lines):
            stripped = line.strip(SPACES)
            if stripped[:1] in ("#", ""):
                continue
            head, text = self._instruction(lines, number, stripped)
            if head == "onbuild":
                self._triggers.append((number, *_split(text)))
                continue
            if head == "from":
                self._trigger()
            if head in INSTRUCTIONS:
                self._expand(number, head, text)
            if head in ("add", "copy") and "<<" in text:
                self._count(number, head, self._heredocs(lines, number, text))
        # Images that are built from this one would run them.
        self._trigger()

    def _instruction(self, lines: Sequence[str], number: int, line: str) -> tuple[str, str]:
        """The instruction that begins at a line, with its continuation lines."""
        head, text = _split(line)
        if not (line.endswith(self._escape) and self._continuation.search(line)):
            return head, text
        # A line may end inside the word.
        begun = "" if text else head[:-1]
        if head not in INSTRUCTIONS and not any(name.startswith(begun) for name in INSTRUCTIONS):
            return "", ""
        parts = list(self._continued(lines, number))
        # Lines may be read several times, which takes time.
        self._add(number, sum(map(len, parts)) + len(parts) * _EACH)
        return _split("".join(parts).strip(SPACES))

    def _continued(self, lines: Sequence[str], number: int) -> Iterator[str]:
        for index in range(number, len(lines)):
            line = lines[index].rstrip("\r")
            if index > number and line.lstrip(SPACES)[:1] in ("", "#"):
                continue
            line = line if index > number else line.lstrip(SPACES)
            found = self._continuation.search(line)
            if not found:
                yield line
                break
            yield line[: found.start()]

    def _heredocs(self, lines: Sequence[str], number: int, text: str) -> int:
        """The length of an instruction's heredocs."""
        length = 0
        below = number + 1
        for found in _HEREDOC.finditer(text):
            begin = below
            # A delimiter of another form may end anywhere, so all following lines count.
            while below < len(lines) and not (found[3] and lines[below].strip("\t\r") == found[2]):
                below += 1
            if not (found[1] and found[3] and below < len(lines)):
                length += self._length("\n".join(lines[begin:below]), quotes=False)
        return length

    def _trigger(self) -> None:
        for number, head, text in self._triggers:
            self._expand(number, head, text)

    def _expand(self, number: int, head: str, text: str) -> None:
        self._add(number, _EACH)
        if head in ("env", "arg"):
            for name, value in self._pairs(head, text):
                self._assign(number, head, name, value)
            return
        length = self._length(text)
        if text.startswith("["):
            length += self._length(_strings(text))
        if head == "run":
            self._add(number, self._environment)
        self._count(number, head, length)

    def _pairs(self, head: str, text: str) -> Iterator[tuple[str, str]]:
        words = self._word.findall(text)
        if head == "env" and words and "=" not in words[0]:
            yield words[0], text[len(words[0]) :]
            return
        name = value = ""
        for word in words:
            if head == "env" and "=" not in word:
                value += word
                continue
            if name:
                yield name, value
            name, _, value = word.partition("=")
        if name:
            yield name, value

    def _assign(self, number: int, head: str, name: str, value: str) -> None:
        length = self._length(value)
        if "$" in value and length > MAX_VALUE:
            raise _refusal(number, f"{head.upper()} sets a variable to", MAX_VALUE)
        if head == "arg":
            length = max(length, len(self._build_args.get(name, "")))
        self._count(number, head, length)
        if not _PLAIN_NAME.fullmatch(name):
            self._any = max(self._any, length)
        before = self._lengths.get(name, 0)
        self._lengths[name] = max(before, length)
        self._environment += self._lengths[name] - before

    def _count(self, number: int, head: str, length: int) -> None:
        # Without variables, an instruction is not longer than the Dockerfile, which has a limit.
        if length > MAX_INSTRUCTION and head not in ("env", "arg"):
            raise _refusal(number, f"{head.upper()} becomes", MAX_INSTRUCTION)
        self._add(number, length)

    def _add(self, number: int, length: int) -> None:
        self._total += length * self._copies
        if self._total > MAX_TOTAL:
            raise _refusal(number, "the instructions up to here become", MAX_TOTAL)

    def _length(self, text: str, *, quotes: bool = True) -> int:
        if "$" not in text:
            return len(text)
        word = Word(text, self._escape, self._value, quotes=quotes)
        try:
            return word.length()
        except Stopped:
            # BuildKit has expanded the text before it at this point.
            return len(text) + word.expanded
        except TooDeep:
            raise Refusal(
                400,
                f"the Dockerfile has more than {DEEPEST} substitutions in one another, "
                "such as ${A:-${B}}: set variables step by step",
            ) from None

    def _value(self, name: str) -> int:
        return max(self._any, self._lengths.get(name, 0))


def _split(line: str) -> tuple[str, str]:
    """An instruction's name, in lower case, and its arguments."""
    head, *rest = _HEAD.split(line, maxsplit=1)
    return head.lower(), rest[0] if rest else ""


def _strings(text: str) -> str:
    """The strings of an instruction in JSON, which may have a `$` as an escape sequence."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return " ".join(value for value in values if isinstance(value, str))


def _refusal(number: int, what: str, limit: int) -> Refusal:
    return Refusal(
        400,
        f"the Dockerfile's variables grow too long: with them expanded, in line {number + 1}, "
        f"{what} more than {limit} characters: repeat variables less often",
    )
