"""Match the patterns of a .dockerignore exactly as moby/patternmatcher does.

Source: `patternmatcher.go` of moby/patternmatcher. It has four kinds of pattern: exact paths,
prefixes (`a/**`), suffixes (`**/a`) and regular expressions.

Patterns come from the sender of the context, so the time for matching is limited:

- Consecutive patterns of one sign are tested together: exact paths in one set, prefixes and
  suffixes in one call each, and most others in a few regular expressions with little backtracking
  (`python_expression`). Each is short, because other threads wait while it is matched.
- All others (`[^a]`, `a**b`, `{2}`, …) use `Regexp`, which is slower and exact.
- The length of all patterns is limited, with lower limits for the two costly kinds. The number of
  sign changes is limited too, because each change is a separate test.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final, TypeAlias

from aiobuildkit.fsutil.expressions import go_expression, python_expression
from aiobuildkit.fsutil.filepath import BadPattern, Glob, clean
from aiobuildkit.fsutil.regexp import MAX_INSTRUCTIONS, Regexp

__all__ = [
    "MAX_GLOB",
    "MAX_GLOBS",
    "MAX_LENGTH",
    "MAX_RUNS",
    "SPACES",
    "Below",
    "Pattern",
    "PatternMatcher",
    "Results",
]

MAX_LENGTH: Final = 1024 * 1024
"""The most characters of all patterns: half a second to parse."""

MAX_GLOBS: Final = 32 * 1024
"""The most characters of all patterns with wildcards: half a second to compile."""

MAX_GLOB: Final = 1024
"""The most characters of one pattern with wildcards, four times the longest name: some milliseconds
for the longest path, while no other thread runs."""

MAX_RUNS: Final = 1000
"""The most runs of patterns of one sign. Common files have dozens; a path takes 0.2 ms with this
many."""

_TOGETHER: Final = 2048
"""Characters of the Python expressions in one call; a single expression may exceed this."""

Results: TypeAlias = tuple[bool, ...]
"""The results of a directory, for the paths in it; opaque."""

SPACES: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""White space as in Go's unicode.IsSpace."""

_WILD: Final = re.compile(r"[*?\[\]\\]")
_PREFIX: Final = re.compile(r"([^*?\[\]\\]+)\*\*")
_SUFFIX: Final = re.compile(r"\*\*([^*?\[\]\\]*)")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern, cleaned.

    Attributes:
        text: without its exclamation mark.
        exception: whether it began with one, and so includes again what earlier patterns matched.
    """

    text: str
    exception: bool

    @property
    def literal_prefix(self) -> str | None:
        """The directory that contains all matching paths, if it is known: `a/` of `a/**`."""
        text = self.text.removesuffix("/**").removesuffix("/*")
        return None if _WILD.search(text) or "^" in text else f"{text}/"


class PatternMatcher:
    """A list of patterns; the last one that matches decides.

    Args:
        patterns: as written; empty ones and white space are ignored.

    Raises:
        BadPattern: one is malformed, or they are too costly. Go only notices some malformed ones
            when it tests a path; here all fail at once.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = list(patterns)
        _hold_to(MAX_LENGTH, "patterns", patterns)
        globs = [pattern for pattern in patterns if _WILD.search(pattern)]
        _hold_to(MAX_GLOBS, "patterns with wildcards", globs)
        for glob in globs:
            _hold_to(MAX_GLOB, "a pattern with wildcards", [glob])
        self.patterns = [
            _parse(stripped) for pattern in patterns if (stripped := pattern.strip(SPACES))
        ]
        runs = [
            (exception, [pattern.text for pattern in run])
            for exception, run in groupby(self.patterns, attrgetter("exception"))
        ]
        if len(runs) > MAX_RUNS:
            raise BadPattern(
                f"patterns and exceptions (!) that take turns more than {MAX_RUNS} times",
                " ".join(patterns[:10]),
            )
        self._runs = [_Run(exception, texts) for exception, texts in runs]
        if sum(run.instructions for run in self._runs) > MAX_INSTRUCTIONS:
            raise BadPattern(
                "too many patterns that are more than plain globs", " ".join(patterns[:10])
            )

    @property
    def top(self) -> Results:
        """The results of the tree's root."""
        return (False,) * len(self._runs)

    def matches(self, path: str, parent: Results) -> bool:
        """Whether a path, or its directory, matches.

        Args:
            path: clean and relative.
            parent: the results of its directory.
        """
        # The last pattern that matches decides, so test from the end.
        for run, inherited in zip(reversed(self._runs), reversed(parent), strict=True):
            if inherited or run.matches(path):
                return not run.exception
        return False

    def results(self, path: str, parent: Results) -> Results:
        """The results of a directory, for the paths in it.

        Patterns that could not change the directory's own outcome are not tested, and paths in it
        inherit this, as in moby (`MatchesUsingParentResults`).
        """
        matched = False
        results = []
        for run, inherited in zip(self._runs, parent, strict=True):
            hit = inherited or (run.exception is matched and run.matches(path))
            results.append(hit)
            if hit:
                matched = not run.exception
        return tuple(results)


class Below:
    """The directories that may contain matches of the patterns of one sign, by their names.

    Args:
        matcher: the patterns.
        exceptions: True for the patterns that begin with an exclamation mark, False for the others.
    """

    def __init__(self, matcher: PatternMatcher, *, exceptions: bool) -> None:
        prefixes = [
            pattern.literal_prefix
            for pattern in matcher.patterns
            if pattern.exception is exceptions
        ]
        known = [prefix for prefix in prefixes if prefix is not None]
        self._prefixes = sorted(known) if len(known) == len(prefixes) else None

    def may_match(self, prefix: str) -> bool:
        """Whether a path in a directory may match; `prefix` is its path with a trailing slash."""
        if self._prefixes is None:
            return True
        place = bisect_left(self._prefixes, prefix)
        return place < len(self._prefixes) and self._prefixes[place].startswith(prefix)


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
        # moby's check. A mistake that it does not find may still fail as a regular expression.
        Glob(text).matches(".")
    return Pattern(text, exception)


class _Run:
    """Consecutive patterns of one sign: only whether any matches is of interest.

    Their order does not matter, nor which of them matched a directory.
    """

    def __init__(self, exception: bool, texts: list[str]) -> None:
        self.exception = exception
        self._exact: set[str] = set()
        regexps: list[Regexp] = []
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
            elif (glob := python_expression(text)) is not None:
                globs.append(glob)
            else:
                regexps.append(_regexp(text))
        self.instructions = sum(regexp.instructions for regexp in regexps)
        self._prefixes = tuple(prefixes)
        self._suffixes = tuple(suffixes)
        self._tests: list[Callable[[str], object]] = [
            *(re.compile(expression).fullmatch for expression in _joined(globs)),
            *(regexp.search for regexp in regexps),
        ]

    def matches(self, path: str) -> bool:
        if path in self._exact or path.startswith(self._prefixes) or path.endswith(self._suffixes):
            return True
        for test in self._tests:  # noqa: SIM110  (any() costs a quarter more)
            if test(path):
                return True
        return False


def _joined(globs: Iterable[str]) -> Iterator[str]:
    """One expression for as many patterns as fit into one call."""
    together: list[str] = []
    length = 0
    for glob in globs:
        if together and length + len(glob) > _TOGETHER:
            yield "|".join(together)
            together, length = [], 0
        together.append(glob)
        length += len(glob) + 1
    if together:
        yield "|".join(together)


def _regexp(pattern: str) -> Regexp:
    try:
        return Regexp(go_expression(pattern))
    except BadPattern as error:
        # Name the author's pattern, not the expression made from it.
        raise BadPattern(error.reason, pattern) from error
