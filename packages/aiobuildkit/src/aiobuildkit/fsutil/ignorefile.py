"""The lines of a .dockerignore as patterns.

Source: `ignorefile.go` of moby/patternmatcher, which BuildKit uses.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from aiobuildkit.fsutil.filepath import BadPattern, clean
from aiobuildkit.fsutil.patternmatcher import SPACES, PatternMatcher

__all__ = ["IgnoreLine", "ignore_lines", "ignore_matcher"]

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_MAX_LINE_BYTES: Final = 64 * 1024
"""Go's bufio.Scanner fails on a line of this length, including the newline."""


class IgnoreLine(NamedTuple):
    """One pattern.

    Attributes:
        number: of its line, from 1.
        pattern: cleaned, with its exclamation mark.
    """

    number: int
    pattern: str


def ignore_lines(content: bytes) -> list[IgnoreLine]:
    """Read the patterns of an ignore file.

    Bytes that are not UTF-8 become lone surrogates, as in Python's file names.

    Raises:
        BadPattern: a line is too long; the reason names it.
    """
    lines = []
    for number, line in enumerate(content.removeprefix(_BYTE_ORDER_MARK).split(b"\n"), 1):
        text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
        if len(line) >= _MAX_LINE_BYTES:
            raise BadPattern(f"line {number} is longer than {_MAX_LINE_BYTES - 1} bytes", text)
        # Only a `#` at the start of a line begins a comment; after a space it is a pattern.
        if not text.startswith("#") and (pattern := _pattern(text.strip(SPACES))):
            lines.append(IgnoreLine(number, pattern))
    return lines


def ignore_matcher(content: bytes) -> PatternMatcher:
    """Compile the patterns of an ignore file.

    Raises:
        BadPattern: a pattern is malformed or too costly; the reason names its line.
    """
    lines = ignore_lines(content)
    try:
        return PatternMatcher(line.pattern for line in lines)
    except BadPattern:
        for number, pattern in lines:
            try:
                PatternMatcher([pattern])
            except BadPattern as error:
                raise BadPattern(f"line {number}: {error.reason}", pattern) from error
        raise


def _pattern(text: str) -> str:
    sign = "!" if text.startswith("!") else ""
    text = text.removeprefix("!").strip(SPACES) if sign else text
    if text:
        text = clean(text)
        text = text.removeprefix("/") if len(text) > 1 else text
    return sign + text
