"""The paths that a COPY can read: its sources, and the targets of symbolic links in them.

BuildKit sends the sources of COPYs (`followpaths`), and the side with the files resolves them.
Source: fsutil's `followlinks.go`. As there, wildcards are only matched to find links, and a link
is only followed for the first path through it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from typing import Final

from aiobuildkit.fsutil.filepath import BadPattern, Glob, clean
from aiobuildkit.fsutil.sender import Entry

__all__ = ["Links", "outermost"]

_LONGEST: Final = 4096
"""Linux's PATH_MAX. A path that links make longer does not exist."""

_WILDCARD: Final = re.compile(r"(?:[^\\*?\[]|\\.)*[*?\[]", re.DOTALL)
"""A name up to its first unescaped wildcard."""


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
        """Resolve paths, whose names may have wildcards; absolute ones begin at the tree's root.

        Many wildcards and many links take long, so it yields for the caller to do something else.

        Returns:
            The paths to include, without those below another: links, and their targets. None for
            the whole tree.
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
        """The target of a link, or of all links that a last name with wildcards matches."""
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
    """Remove paths that are below the previous one; None if one is the root.

    It expects sorted paths. Upstream also applies it to others, which removes absolute ones.
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
