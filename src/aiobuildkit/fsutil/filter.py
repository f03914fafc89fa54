"""Which entries of a tree a FileSync call gets.

The call's metadata name patterns and paths; the sources of record are BuildKit's
``session/filesync/filesync.go`` for their form and fsutil's ``filter.go`` for their effect.

Patterns come from the sender of the context. Their own bounds (`fsutil.patternmatcher`) limit
what one path takes, and a tree has many; so a selection has a budget too, in processor time: a
count of characters to compare would either refuse long lists of plain patterns or bound nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

from aiobuildkit.fsutil.filepath import BadPattern
from aiobuildkit.fsutil.followlinks import Links, outermost
from aiobuildkit.fsutil.patternmatcher import Below, PatternMatcher, Results
from aiobuildkit.fsutil.sender import DIRECTORY, Entry

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

__all__ = ["BUDGET", "Wanted", "pieces", "select"]

BUDGET: Final = 10
"""Seconds of processor time for a selection: twenty times what 200,000 entries take with a few
patterns."""

_PIECE: Final = 0.02
"""Seconds after which a piece of a selection ends, so that who asked for it can give up."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call asks for.

    Attributes:
        dir_name: which tree.
        include: patterns, of which a path or one of its directories must match one; all if empty.
        exclude: patterns that it must not match.
        follow: paths that, with what links in them lead to, are included too; the whole tree if
            there are neither these nor patterns to include.
    """

    dir_name: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    follow: tuple[str, ...] = ()

    @classmethod
    def parse(cls, metadata: Mapping[str, Sequence[str]]) -> Wanted:
        """Read a call's metadata: a value a header, query-escaped where a marker says so."""
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
    """A directory that the walk is in."""

    prefix: str
    entry: Entry
    results: Sequence[Results]
    given: bool


def pieces(entries: Sequence[Entry], wanted: Wanted) -> Iterator[list[Entry]]:
    """What `select` gives, in pieces, which may be empty.

    A piece computes for some 20 ms, so it is for a worker thread. Single steps, such as to take
    all patterns apart, may last longer, but other threads have their turns meanwhile.

    Raises:
        BadPattern: as `select` does, and where all pieces took more than `BUDGET`.
        OSError: as `select` does.
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
        # Not counted is what the thread does between two pieces; it need not be the same one.
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
    """Walk a tree and give what a call gets, in order.

    A directory that is not wanted itself comes before the first entry in it that is.

    Args:
        entries: in fsutil's order, every parent present.
        wanted: what the call asks for.

    Yields:
        An entry, or None for a step without one, so that the caller can do something else.

    Raises:
        BadPattern: a pattern is malformed or too costly.
        OSError: what is in a directory may be wanted, and is not known.
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
    """The directories that have not been given yet; who is given, so is all above."""
    if not parents[-1].given:
        for parent in parents:
            if not parent.given:
                parent.given = True
                yield parent.entry


class _Filter:
    """Patterns that say what is kept, or what is not.

    Attributes:
        keeps: whether what matches is kept.
    """

    def __init__(self, patterns: Sequence[str], *, keeps: bool) -> None:
        self.keeps = keeps
        self.matcher = PatternMatcher(patterns)
        self._below = Below(self.matcher, exceptions=not keeps)

    def goes_on_below(self, kept: bool, prefix: str) -> bool:
        """Whether anything in a directory, kept or not, may be kept."""
        return kept or self._below.may_match(prefix)
