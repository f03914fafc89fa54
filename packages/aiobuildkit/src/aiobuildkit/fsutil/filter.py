"""The entries of a tree that a FileSync call gets.

The call's metadata have patterns and paths. Sources: BuildKit's `session/filesync/filesync.go`
(their form) and fsutil's `filter.go` (their effect).

Patterns come from the sender of the context. `fsutil.patternmatcher` limits the time for one path,
but a tree has many paths, so a selection also has a budget of CPU time. A limit on characters to
compare would either refuse long lists of plain patterns, or be too high to limit the time.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final
from urllib.parse import unquote_plus

from aiobuildkit.fsutil.filepath import BadPattern
from aiobuildkit.fsutil.followlinks import Links, outermost
from aiobuildkit.fsutil.patternmatcher import Below, PatternMatcher, Results
from aiobuildkit.fsutil.sender import DIRECTORY, Entry

__all__ = ["BUDGET", "Wanted", "pieces", "select"]

BUDGET: Final = 10
"""Seconds of CPU time for a selection: twenty times that of 200,000 entries with a few patterns."""

_PIECE: Final = 0.02
"""Seconds of CPU time for a piece of a selection, after which the caller can cancel."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The entries that a call asks for.

    Attributes:
        dir_name: the name of the tree.
        include: a path, or one of its directories, must match one of these patterns; empty: all.
        exclude: a path must not match these patterns.
        follow: paths that are included too, with the targets of links in them. Without these and
            `include`, the whole tree is included.
    """

    dir_name: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()

    @classmethod
    def parse(cls, metadata: Mapping[str, Sequence[str]]) -> Wanted:
        """Read a call's metadata: one header for each value, query-escaped if a marker says so."""
        return cls(
            dir_name=next(iter(_values(metadata, "dir-name")), ""),
            include=_values(metadata, "include-patterns"),
            exclude=_values(metadata, "exclude-patterns"),
            follow=_values(metadata, "followpaths"),
        )


def _values(metadata: Mapping[str, Sequence[str]], key: str) -> tuple[str, ...]:
    values = metadata.get(key, ())
    if list(metadata.get(f"{key}-encoded", ()))[:1] == ["1"]:
        return tuple(unquote_plus(value, errors="surrogateescape") for value in values)
    return tuple(values)


@dataclass(slots=True)
class _Directory:
    """A directory that contains the current entry."""

    prefix: str
    entry: Entry
    results: Sequence[Results]
    given: bool


def pieces(entries: Sequence[Entry], wanted: Wanted) -> Iterator[list[Entry]]:
    """The entries of `select`, in pieces, which may be empty.

    A piece computes for about 20 ms, so it is for a worker thread. A single step, such as parsing
    all patterns, may take longer, but other threads run meanwhile.

    Raises:
        BadPattern: as in `select`, and if all pieces together take more than `BUDGET`.
        OSError: as in `select`.
    """
    steps = select(entries, wanted)
    began = time.thread_time()
    spent = 0.0
    while piece := _piece(steps):
        spent += time.thread_time() - began
        if spent > BUDGET:
            patterns = (*wanted.exclude, *wanted.include, *wanted.follow)
            raise BadPattern(
                f"patterns that take more than {BUDGET} s for {len(entries)} files",
                " ".join(patterns[:10]),
            )
        yield [entry for entry in piece if entry is not None]
        # Time between two pieces does not count. Each piece may run in another thread.
        began = time.thread_time()


def _piece(steps: Iterator[Entry | None]) -> list[Entry | None]:
    end = time.monotonic() + _PIECE
    piece = []
    for step in steps:
        piece.append(step)
        if time.monotonic() > end:
            break
    return piece


def select(entries: Sequence[Entry], wanted: Wanted) -> Iterator[Entry | None]:
    """Walk a tree and yield a call's entries, in order.

    A directory that is not included itself comes before its first entry that is included.

    Args:
        entries: in fsutil's order, every parent present.
        wanted: the call's selection.

    Yields:
        An entry, or None, so that the caller can do something else in between.

    Raises:
        BadPattern: a pattern is malformed or too costly.
        OSError: entries of an unreadable directory may be included.
    """
    include = yield from _included(entries, wanted)
    filters = []
    if include:
        filters.append(_Filter(include, keeps=True))
    if wanted.exclude:
        filters.append(_Filter(wanted.exclude, keeps=False))
    if filters:
        yield from _walk(entries, filters)
    else:
        for entry in entries:
            if entry.unreadable:
                raise _unreadable(entry)
            yield entry


def _included(entries: Sequence[Entry], wanted: Wanted) -> Generator[None, None, Sequence[str]]:
    if not wanted.follow:
        return wanted.include
    targets = yield from Links(entries).follow(wanted.follow)
    if targets is None:
        return wanted.include
    return outermost([*wanted.include, *targets]) or ()


def _walk(entries: Sequence[Entry], filters: Sequence[_Filter]) -> Iterator[Entry | None]:
    root = _Directory("", Entry("", DIRECTORY), [each.matcher.top for each in filters], given=True)
    parents = [root]
    skipped = "/"
    for entry in entries:
        path = entry.path
        if path.startswith(skipped):
            yield None
            continue
        while not path.startswith(parents[-1].prefix):
            parents.pop()
        parent = parents[-1]
        kept = [
            each.matcher.matches(path, results) is each.keeps
            for each, results in zip(filters, parent.results, strict=True)
        ]
        given = all(kept)
        if given:
            yield from _give(parents)
        yield entry if given else None
        if entry.is_directory:
            prefix = f"{path}/"
            if all(map(_Filter.goes_on_below, filters, kept, repeat(prefix))):
                if entry.unreadable:
                    raise _unreadable(entry)
                results = [
                    each.matcher.results(path, above)
                    for each, above in zip(filters, parent.results, strict=True)
                ]
                parents.append(_Directory(prefix, entry, results, given))
            else:
                skipped = prefix


def _unreadable(directory: Entry) -> OSError:
    return OSError(f"{directory.path}: {directory.unreadable}")


def _give(parents: Sequence[_Directory]) -> Iterator[Entry]:
    """The directories that have not been yielded yet; parents are yielded first."""
    if not parents[-1].given:
        for parent in parents:
            if not parent.given:
                parent.given = True
                yield parent.entry


class _Filter:
    """Patterns that include entries, or that exclude them.

    Attributes:
        keeps: whether matching entries are included.
    """

    def __init__(self, patterns: Sequence[str], *, keeps: bool) -> None:
        self.keeps = keeps
        self.matcher = PatternMatcher(patterns)
        self._below = Below(self.matcher, exceptions=not keeps)

    def goes_on_below(self, kept: bool, prefix: str) -> bool:
        """Whether a directory, included or not, may have included entries."""
        return kept or self._below.may_match(prefix)
