"""Translate the patterns of a .dockerignore to Go's regular expressions, and most also to Python's.

Python's expressions backtrack over one star only. All other stars are in atomic groups. This is
correct because the next star can match the text that an earlier match would have left. So matching
takes at most the length of the path times that of the pattern. The two may differ for a name with a
line feed between two `**`, because Go's stop there.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["go_expression", "python_expression"]

_GO_EXPRESSIONS: Final = {"*": "[^/]*", "?": "[^/]"} | {char: f"\\{char}" for char in ".+()$"}


def go_expression(pattern: str) -> str:
    """The regular expression that moby makes from a pattern."""
    out = "^"
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*" and pattern.startswith("*", position):
            position += 1
            position += pattern.startswith("/", position)
            out += "(.*/)?" if position < len(pattern) else ".*"
        elif char == "\\":
            out += char + pattern[position : position + 1]
            position += 1
        else:
            # As in moby, not all special characters of regular expressions are escaped.
            out += _GO_EXPRESSIONS.get(char, char)
    return out + "$"


_STAR: Final = "*"
_GLOBSTAR: Final = "**"
_SLASH: Final = "/"
_WILDCARDS: Final = {"star": _STAR, "globstar": _GLOBSTAR, "slash": _SLASH, "any": "[^/]"}
_END: Final = r"\Z"
_RANGE: Final = re.compile("(.)-(.)")
_TOKEN: Final = re.compile(
    r"""
      (?P<globstar> \*\*/? )
    | (?P<star> \* )
    | (?P<slash> / )
    | (?P<any> \? )
    | \\ (?P<escaped> [^0-9A-Za-z/\u0080-\U0010ffff] )
    | \[ (?P<class> (?: [0-9A-Za-z]-[0-9A-Za-z] | [0-9A-Za-z_!.,@%=+\ ] )+ ) \]
    | (?P<text> [^*?/\[\]\\{|^]+ | \{(?![0-9]) )
    """,
    re.VERBOSE | re.DOTALL,
)


def python_expression(pattern: str) -> str | None:
    """Translate a pattern to Python's syntax.

    None for a pattern with characters that Go reads differently, or with a `**` inside a name.
    """
    # The pattern in blocks that ** separates.
    blocks: list[list[str]] = [[]]
    previous = _SLASH
    position = 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None or _goes_backwards(token["class"] or ""):
            return None
        position = token.end()
        item = _translate(token)
        if item != _GLOBSTAR:
            blocks[-1].append(item)
        elif previous not in {_SLASH, _GLOBSTAR}:
            return None
        elif blocks[-1] or len(blocks) == 1:
            blocks.append([])
        previous = item
    first, *others = blocks
    if not others:
        return _names(first, _END)
    *middle, last = others
    # The first match of a block between two ** is enough: it ends with a slash, so the
    # second ** can match all text before a later match.
    between = "".join(f"(?>(?:.*?/)??{_names(block, '')})" for block in middle)
    ending = f"(?:.*/)?{_names(last, _END)}" if last else ".*"
    return _names(first, "") + between + ending


def _goes_backwards(members: str) -> bool:
    return any(low > high for low, high in _RANGE.findall(members))


def _translate(token: re.Match[str]) -> str:
    kind = token.lastgroup or ""
    if kind == "class":
        return f"[{token['class']}]"
    return _WILDCARDS.get(kind) or re.escape(token[kind])


def _names(items: list[str], end: str) -> str:
    """A sequence of names, each but the last with its slash; `end` is what follows the last."""
    out = ""
    name: list[str] = []
    for item in items:
        if item == _SLASH:
            out += _name(name, "/")
            name = []
        else:
            name.append(item)
    return out + _name(name, end)


def _name(items: list[str], end: str) -> str:
    pieces = [""]
    for item in items:
        if item == _STAR:
            pieces.append("")
        else:
            pieces[-1] += item
    head, *pieces = pieces
    if not pieces:
        return head + end
    *middle, last = pieces
    # Also here, the first match is enough for each piece before another star.
    between = "".join(f"(?>[^/]*?{piece})" for piece in middle if piece)
    return f"{head}{between}(?>[^/]*{last}{end})"
