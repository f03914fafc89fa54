"""The meaning of a .dockerignore's patterns: moby/patternmatcher's, to the letter.

The source of record is ``patternmatcher.go`` of moby/patternmatcher. Four kinds of pattern are
told apart there: exact paths, prefixes (``a/**``), suffixes (``**/a``) and regular expressions.

Patterns come from whoever sent the context, so the time that matching takes is bounded:

- Consecutive patterns of one sign are tested together: exact paths in one set, prefixes and
  suffixes in one call each, and what `_plain` can translate in one regular expression of Python's.
- Such an expression never backtracks over more than one star: all others are in atomic groups,
  which is sound because the next star can take in whatever an earlier place would have left over.
  So a path costs at most its length times the length of the patterns.
- What remains (``[^a]``, ``a**b``, ``{2}``, …) goes to `Regexp`, which is slower and exact.
- All patterns together are bounded in length, and those of the two costly kinds more closely.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeAlias

from aiobuildkit.wire.filepath import BadPattern, Glob, clean
from aiobuildkit.wire.regexp import MAX_INSTRUCTIONS, Regexp

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MAX_GLOBS", "MAX_LENGTH", "Pattern", "PatternMatcher", "Results"]

MAX_LENGTH: Final = 1024 * 1024
"""Bound on the characters of a matcher's patterns: half a second to take apart."""

MAX_GLOBS: Final = 32 * 1024
"""Bound on the characters of those with wildcards: half a second to compile."""

Results: TypeAlias = tuple[bool, ...]
"""What a directory matched, for the paths in it; opaque."""

# What Go's unicode.IsSpace holds to be white space.
_SPACES: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_WILD: Final = re.compile(r"[*?\[\]\\]")
_PREFIX: Final = re.compile(r"([^*?\[\]\\]+)\*\*")
_SUFFIX: Final = re.compile(r"\*\*([^*?\[\]\\]*)")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern, cleaned.

    Attributes:
        text: without its exclamation mark.
        exception: it began with one, and so takes back what earlier patterns matched.
    """

    text: str
    exception: bool

    @property
    def literal_prefix(self) -> str | None:
        """The directory that holds all that can match, if that can be told: ``a/`` of ``a/**``."""
        text = self.text.removesuffix("/**").removesuffix("/*")
        return None if _WILD.search(text) or "^" in text else f"{text}/"


class PatternMatcher:
    """A list of patterns, of which the last one that matches decides.

    Args:
        patterns: as written; those that are empty or white space are left out.

    Raises:
        BadPattern: one is malformed, or they are too costly. Go notices some malformed ones only
            when a path is tested against them; here all fail at once.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = list(patterns)
        _hold_to(MAX_LENGTH, "patterns", patterns)
        _hold_to(MAX_GLOBS, "patterns with wildcards", filter(_WILD.search, patterns))
        self.patterns = [
            _parse(stripped) for pattern in patterns if (stripped := pattern.strip(_SPACES))
        ]
        self._runs = [
            _Run(exception, [pattern.text for pattern in run])
            for exception, run in groupby(self.patterns, attrgetter("exception"))
        ]
        if sum(run.instructions for run in self._runs) > MAX_INSTRUCTIONS:
            raise BadPattern(
                "too many patterns that are more than plain globs", " ".join(patterns[:10])
            )

    @property
    def top(self) -> Results:
        """What the tree's root passes on."""
        return (False,) * len(self._runs)

    def matches(self, path: str, parent: Results) -> bool:
        """Whether a path matches; it does, too, where its directory matched.

        Args:
            path: clean and relative.
            parent: the results of its directory.
        """
        # The last pattern that matches decides, whatever those before it say.
        for run, inherited in zip(reversed(self._runs), reversed(parent), strict=True):
            if inherited or run.matches(path):
                return not run.exception
        return False

    def results(self, path: str, parent: Results) -> Results:
        """What a directory passes on.

        Patterns that could not change the directory's own outcome are not looked at, which those
        in it inherit: that is moby's way (``MatchesUsingParentResults``).
        """
        matched = False
        results = []
        for run, inherited in zip(self._runs, parent, strict=True):
            hit = inherited or (run.exception is matched and run.matches(path))
            results.append(hit)
            if hit:
                matched = not run.exception
        return tuple(results)


def _hold_to(bound: int, what: str, patterns: Iterable[str]) -> None:
    patterns = list(patterns)
    if sum(map(len, patterns)) > bound:
        raise BadPattern(f"{what} of more than {bound} characters", " ".join(patterns[:10]))


def _parse(pattern: str) -> Pattern:
    text = clean(pattern)
    exception = text.startswith("!")
    if exception:
        text = text[1:]
    if not text:
        raise BadPattern("illegal exclusion pattern", '"!"')
    if _WILD.search(text):
        # moby's way to notice a mistake; what it lets pass fails as a regular expression, or not.
        Glob(text).matches(".")
    return Pattern(text, exception)


class _Run:
    """Consecutive patterns of one sign: whether any matches is all that is to be known.

    Their order does not matter, and neither does which of them a directory matched.
    """

    def __init__(self, exception: bool, texts: list[str]) -> None:
        self.exception = exception
        self._exact: set[str] = set()
        self._regexps: list[Regexp] = []
        prefixes: list[str] = []
        suffixes: list[str] = []
        globs: list[str] = []
        for text in texts:
            if not _WILD.search(text):
                self._exact.add(text)
            elif (prefix := _PREFIX.fullmatch(text)) is not None:
                prefixes.append(prefix[1])
            elif (suffix := _SUFFIX.fullmatch(text)) is not None:
                suffixes.append(suffix[1])
                if suffix[1].startswith("/"):
                    self._exact.add(suffix[1][1:])
            elif (glob := _plain(text)) is not None:
                globs.append(glob)
            else:
                self._regexps.append(_regexp(text))
        self.instructions = sum(regexp.instructions for regexp in self._regexps)
        self._prefixes = tuple(prefixes)
        self._suffixes = tuple(suffixes)
        self._globs = "|".join(globs)
        self._glob: re.Pattern[str] | None = None

    def matches(self, path: str) -> bool:
        if path in self._exact or path.startswith(self._prefixes) or path.endswith(self._suffixes):
            return True
        if self._globs:
            if self._glob is None:
                self._glob = re.compile(self._globs)
            if self._glob.fullmatch(path):
                return True
        return any(regexp.search(path) for regexp in self._regexps)


def _regexp(pattern: str) -> Regexp:
    try:
        return Regexp(_go_expression(pattern))
    except BadPattern as error:
        # Nobody wrote the expression.
        raise BadPattern(error.reason, pattern) from error


_GO_EXPRESSIONS: Final = {"*": "[^/]*", "?": "[^/]"} | {char: f"\\{char}" for char in ".+()$"}


def _go_expression(pattern: str) -> str:
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


def _plain(pattern: str) -> str | None:
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
        if token is None:
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
