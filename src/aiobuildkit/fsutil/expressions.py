"""The regular expressions that a .dockerignore's patterns stand for: Go's, and Python's for most.

In Python's none backtracks over more than one star: all others are in atomic groups, which is sound
because the next star can take in whatever an earlier place would have left over. So matching takes
at most the length of the path times that of the pattern. A name with a line feed is where they may
differ: between two ``**``, of which Go's stop at one.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["go_expression", "python_expression"]

_GO_EXPRESSIONS: Final = {"*": "[^/]*", "?": "[^/]"} | {char: f"\\{char}" for char in ".+()$"}


def go_expression(pattern: str) -> str:
    """The regular expression that moby makes of a pattern."""
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
            # Not all that regular expressions give a meaning is escaped there, so nor here.
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
    """Translate a pattern whose wildcards keep to whole names to Python's syntax.

    None for one with characters that mean something else to Go, or with a ``**`` that is a part
    of a name.
    """
    # The pattern in blocks, between which ** stands.
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
    # The first place where a block between two ** matches will do: it ends with a slash, so the
    # second ** can take in all that a later place would have skipped.
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
    # Here too the first place will do for each piece that another star follows.
    between = "".join(f"(?>[^/]*?{piece})" for piece in middle if piece)
    return f"{head}{between}(?>[^/]*{last}{end})"
