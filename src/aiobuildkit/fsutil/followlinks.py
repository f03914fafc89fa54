"""Which paths a COPY can touch: its sources, and what the symbolic links in them lead to.

BuildKit names the sources of its COPYs (``followpaths``), and the side that has the files resolves
them. The source of record is fsutil's ``followlinks.go``; as there, wildcards are looked at only to
find links among what they match, and a link is followed for the first path through it only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from aiobuildkit.fsutil.filepath import BadPattern, Glob, clean

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from aiobuildkit.fsutil.sender import Entry

__all__ = ["Links", "outermost"]

_LONGEST: Final = 4096
"""No path is longer (Linux's PATH_MAX); what links make longer leads nowhere."""

_WILDCARD: Final = re.compile(r"(?:[^\\*?\[]|\\.)*[*?\[]", re.DOTALL)
"""A name up to its first wildcard that is not escaped."""


class Links:
    """The symbolic links of a tree."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._targets: dict[str, str] = {}
        self._names: defaultdict[str, list[str]] = defaultdict(list)
        for entry in entries:
            if entry.is_symlink:
                directory, _, name = entry.path.rpartition("/")
                base = "" if entry.target.startswith("/") else f"/{directory}"
                self._targets[entry.path] = clean(f"{base}/{entry.target}")
                self._names[directory].append(name)

    def follow(self, paths: Iterable[str]) -> Generator[None, None, list[str] | None]:
        """Resolve paths, whose names may hold wildcards; absolute ones are the tree's too.

        It can take long where there are many wildcards and many links, so it stops now and then
        for the caller to do something else.

        Returns:
            The paths to include, outermost only: links on the way and what is behind them. None
            if that is the whole tree.
        """
        resolved: set[str] = set()
        waiting = list(paths)[::-1]
        while waiting:
            yield
            path = clean(f"./{waiting.pop()}")
            if len(path) > _LONGEST:
                resolved.add(path)
                continue
            current, rest = "", path
            targets: list[str] = []
            while rest and not targets:
                name, _, rest = rest.partition("/")
                current = f"{current}/{name}" if current else name
                targets = yield from self._targets_of(current)
            if current not in resolved:
                resolved.add(current)
                waiting += (f"{target}/{rest}" for target in reversed(targets))
        return outermost(sorted(resolved))

    def _targets_of(self, path: str) -> Generator[None, None, list[str]]:
        """Where a link leads, or all links that a last name with wildcards matches."""
        directory, _, name = path.rpartition("/")
        if not _WILDCARD.match(name):
            return [self._targets[path]] if path in self._targets else []
        glob = Glob(name)
        targets = []
        for link in self._names[directory]:
            yield
            if _matches(glob, link):
                targets.append(self._targets[f"{directory}/{link}" if directory else link])
        return targets


def _matches(glob: Glob, name: str) -> bool:
    try:
        return glob.matches(name)
    except BadPattern:
        return False


def outermost(paths: Sequence[str]) -> list[str] | None:
    """Leave out paths that are below the one before; None where one is the root.

    It is for sorted paths; upstream applies it to others too, so absolute ones vanish.
    """
    kept: list[str] = []
    last = ""
    for path in paths:
        if path == ".":
            return None
        if not path.startswith(f"{last}/"):
            kept.append(path)
            last = path
    return kept
