"""How many instructions a Dockerfile has, and how many words and characters they have.

BuildKit compares the sources of all COPYs with one another, and each ENV with the ones before it,
so its time grows with the square of their number. Measured with v0.32.2: 5,000 sources take 2 s,
10,000 take 6 s and 40,000 take 33 s. No step runs meanwhile, so no limit of steps applies.

The counts are upper bounds. Each line may begin an instruction, also in a heredoc, and both escape
characters continue a line. Source of the syntax: BuildKit, `frontend/dockerfile/parser/parser.go`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from function_builder.contract.errors import Refusal
from function_builder.policy.expansion import INSTRUCTIONS, SPACES

MAX_INSTRUCTIONS: Final = 5000

MAX_WORDS: Final = 5000
"""Words of all instructions of a kind: sources of COPY and ADD, variables of ENV, flags of RUN."""

MAX_INSTRUCTION_CHARS: Final = 256 << 10
"""Characters of one instruction, without the files of its heredocs. A command line has 128 KiB at
most, because Linux passes no longer argument to a program (MAX_ARG_STRLEN)."""

_ALWAYS_FEW: Final = 2 * MAX_WORDS
"""Bytes of a Dockerfile that is below all limits: a word has two with the space before it."""

_COMMANDS: Final = frozenset({"cmd", "entrypoint", "healthcheck", "run", "shell"})
"""Their words are a program's: BuildKit reads only their flags."""

_SOURCES: Final = "COPY and ADD"
_KINDS: Final = {"add": _SOURCES, "copy": _SOURCES}

_LONGEST_NAME: Final = max(map(len, INSTRUCTIONS))


@dataclass(slots=True)
class _Tail:
    """What an instruction has from a line on, with the lines that continue it.

    Attributes:
        head: its first word, cut to a length that no instruction's name has.
        words: an upper bound of its words, `head` included.
        flags: the flags that it begins with.
        flags_after_head: the flags that follow `head`.
        chars: its length.
        is_apart: the line begins with a space.
    """

    head: str = ""
    words: int = 0
    flags: int = 0
    flags_after_head: int = 0
    chars: int = 0
    is_apart: bool = False


def refuse_size(dockerfile: bytes) -> None:
    """Refuse a Dockerfile whose instructions are too many, or too long.

    Raises:
        Refusal: 400.
    """
    if len(dockerfile) < _ALWAYS_FEW:
        return
    lines = dockerfile.decode("utf-8", "replace").split("\n")
    instructions = 0
    words: Counter[str] = Counter()
    tail = _Tail()
    # Backwards, so that a line that continues many others is read once.
    for number in range(len(lines), 0, -1):
        line = lines[number - 1].rstrip(SPACES)
        if line.lstrip(SPACES)[:1] in ("", "#"):
            # It does not end the instruction that it stands in.
            continue
        tail = _tail(line, tail)
        if tail.head not in INSTRUCTIONS:
            continue
        instructions += 1
        kind = _KINDS.get(tail.head, tail.head.upper())
        words[kind] += tail.flags_after_head if tail.head in _COMMANDS else tail.words
        if tail.chars > MAX_INSTRUCTION_CHARS:
            raise _refusal(
                f"its {tail.head.upper()} in line {number} has more than "
                f"{MAX_INSTRUCTION_CHARS} characters"
            )
        if words[kind] > MAX_WORDS:
            raise _refusal(f"its {kind} instructions have more than {MAX_WORDS} words in all")
        if instructions > MAX_INSTRUCTIONS:
            raise _refusal(f"it has more than {MAX_INSTRUCTIONS} instructions")


def _tail(line: str, after: _Tail) -> _Tail:
    """Put a line before what the next one has, if the next one continues it.

    Args:
        line: without the spaces behind it.
        after: what the next line has that is neither empty nor a comment.
    """
    if line.endswith(("\\", "`")):
        line = line[:-1]
    else:
        after = _Tail()
    words = line.split()
    if len(words) > 1 and words[0].lower() == "onbuild":
        del words[0]
    tail = _Tail(
        head=words[0] if words else "",
        # An instruction in JSON has words between commas.
        words=len(words) + line.count(",") + after.words,
        flags=_flags(words, after),
        flags_after_head=_flags(words[1:], after),
        chars=len(line) + after.chars,
        is_apart=line[:1].isspace(),
    )
    if len(words) == 1 and not line[-1:].isspace() and not after.is_apart:
        # A line may end within the name of an instruction.
        tail.head += after.head
        tail.flags_after_head = max(tail.flags_after_head, after.flags_after_head)
    tail.head = tail.head[: _LONGEST_NAME + 1].lower()
    return tail


def _flags(words: Sequence[str], after: _Tail) -> int:
    """The flags that words begin with; if there is nothing else, those that follow count too."""
    flags = sum(1 for _ in takewhile(lambda word: word.startswith("--"), words))
    return flags + after.flags if flags == len(words) else flags


def _refusal(what: str) -> Refusal:
    return Refusal(
        400,
        f"the Dockerfile is too long for BuildKit: {what}: copy whole folders, "
        "and put long lists and scripts into files of the context",
    )
