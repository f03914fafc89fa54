"""The announced contents under one shared key, and the announcement of the next context.

`mtimes.py`, which keeps this between builds, has the reasons.
"""

from __future__ import annotations

import marshal
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from stat import S_IFREG, S_ISDIR, S_ISREG
from typing import Final, NamedTuple

from function_builder.contract.context import ContextEntry

_SECOND: Final = 1_000_000_000

# Times that every file system can store (ext4 and xfs with small inodes), in seconds.
_EARLIEST: Final = -(1 << 31)
_LATEST: Final = (1 << 31) - 1

# A copy that takes seconds writes many files in each second, in the order of names: 340 to
# 3,700 of 10,000 on a busy machine, fewer in its first and its last second. faas-cli makes two such
# passes: the template, and the function into a folder of it.
_FILES_A_SECOND: Final = 250
_FILES_IN_EACH_SECOND: Final = 20
_PASSES: Final = 4

_NO_REFERENCES: Final = 2
"""The version of marshal's format in which equal records have equal bytes."""

_USUAL_MODE: Final = S_IFREG | 0o644

# If most of a record is old (names with hashes or times that are new in every build), it costs more
# than the full transfer of a new generation.
_PAST_PER_PRESENT: Final = 2
_PAST_ALLOWED: Final = 1000


class Announced(NamedTuple):
    """The mtimes to announce for a context's entries, and the entries to resend.

    Attributes:
        mtimes: nanoseconds since the epoch, one for each entry of the context, in its order.
        resend: the numbers of the entries that BuildKit must receive again.
        requested: the numbers of the files that BuildKit will ask for, as far as is known.
    """

    mtimes: Sequence[int]
    resend: AbstractSet[int]
    requested: AbstractSet[int] = frozenset()


@dataclass(slots=True, eq=False)
class Contents:
    """The announced files and directories under a key.

    Symbolic links are not in it, because BuildKit compares their targets.
    """

    # The last build's announcement by path: the content's digest, and the mtime.
    present: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    # The same for all earlier builds.
    past: dict[str, tuple[tuple[bytes, int], ...]] = field(default_factory=dict)
    directory_modes: dict[str, int] = field(default_factory=dict)
    # The newest file's mtime in the last build's tar.
    newest: int = 0
    # The modes of the last build's files that do not have the usual one.
    file_modes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def unpack(cls, packed: bytes) -> Contents:
        """Undo `pack`; b"" is an empty record."""
        return cls(*marshal.loads(packed)) if packed else cls()  # noqa: S302 (our own data, which did not leave the process)

    def pack(self) -> bytes:
        """The record in a third of the memory, for the time between two builds."""
        parts = self.present, self.past, self.directory_modes, self.newest, self.file_modes
        return marshal.dumps(parts, _NO_REFERENCES)

    @property
    def paths(self) -> int:
        """The number of paths in the record."""
        past = sum(map(len, self.past.values()))
        return len(self.present) + past + len(self.directory_modes)

    def fresh_copy(self, entries: Sequence[ContextEntry], digests: Sequence[bytes]) -> bool:
        """Whether the context is a fresh copy, whose times have no meaning.

        It is if all files are newer than the newest of the last build, and were written by one
        copy. It is not if a `.pyc` changed, because a `.pyc` contains the time of its source.
        """
        mtimes = [entry.mtime for entry in entries if S_ISREG(entry.mode)]
        if not self.present or not mtimes or min(mtimes) <= self.newest:
            return False
        return _in_one_go(mtimes) and not any(
            entry.path.endswith(".pyc") and self.present.get(entry.path, (b"",))[0] != digest
            for entry, digest in zip(entries, digests, strict=True)
        )

    def announce(
        self, entries: Sequence[ContextEntry], digests: Sequence[bytes], *, fresh: bool
    ) -> Announced | None:
        """Record a context and return its announcement; None if it needs a new generation.

        Args:
            entries: the context.
            digests: of its entries.
            fresh: whether unchanged files keep their times.
        """
        mtimes = [entry.mtime for entry in entries]
        unlike = self._unlike(entries, digests, mtimes, fresh=fresh)
        changed = self._announce_files(entries, digests, mtimes, unlike.values(), fresh=fresh)
        files = {entry.path: entry.mtime for entry in entries if S_ISREG(entry.mode)}
        self.newest = max(files.values(), default=0)
        if len(self.present) > len(files):
            for path in self.present.keys() - files.keys():
                self._bury(path)
        directories = [number for number, entry in enumerate(entries) if S_ISDIR(entry.mode)]
        doubtful = self._doubtful(entries)
        needless = sum(entries[number].size for number in doubtful if number not in changed)
        if self._outgrown(entries, needless) or not self._keep_modes(entries, directories):
            return None
        resend = set(directories)
        for number in doubtful:
            resend.update(unlike.get(entries[number].link_group, (number,)))
        changed |= self._keep_file_modes(entries)
        return Announced(mtimes, resend, changed.union(resend.difference(directories)))

    def _unlike(
        self,
        entries: Sequence[ContextEntry],
        digests: Sequence[bytes],
        mtimes: list[int],
        *,
        fresh: bool,
    ) -> Mapping[int, Sequence[int]]:
        """The files with several names, by link group, and each changed file by itself.

        An unchanged file of a fresh copy gets its previous time.
        """
        unlike: dict[int, list[int]] = {}
        present = self.present
        for number, (path, mode, _, mtime, _, group, _) in enumerate(entries):
            if not S_ISREG(mode):
                continue
            known = present.get(path)
            if group:
                unlike.setdefault(group, []).append(number)
            elif not known or known[0] != digests[number]:
                unlike[-number - 1] = [number]
            elif known[1] != mtime:
                if fresh:
                    mtimes[number] = known[1]
                else:
                    unlike[-number - 1] = [number]
        return unlike

    def _announce_files(
        self,
        entries: Sequence[ContextEntry],
        digests: Sequence[bytes],
        mtimes: list[int],
        groups: Iterable[Sequence[int]],
        *,
        fresh: bool,
    ) -> set[int]:
        """Record files, each with all its names, and set the times of those that keep theirs.

        Returns:
            The numbers of the others.
        """
        changed: set[int] = set()
        for numbers in groups:
            paths = [entries[number].path for number in numbers]
            told = (digests[numbers[0]], mtimes[numbers[0]])
            # A file has one time: the old one only if all names have it.
            known, *others = {self.present.get(path) for path in paths}
            if known and not others and known[0] == told[0] and (fresh or known[1] == told[1]):
                for number in numbers:
                    mtimes[number] = known[1]
                continue
            changed.update(numbers)
            for path in paths:
                self._bury(path)
                self.present[path] = told
        return changed

    def _keep_modes(self, entries: Sequence[ContextEntry], directories: Iterable[int]) -> bool:
        """Record the directories' modes; False if one had another mode before."""
        return all(
            self.directory_modes.setdefault(entries[number].path, entries[number].mode)
            == entries[number].mode
            for number in directories
        )

    def _keep_file_modes(self, entries: Sequence[ContextEntry]) -> set[int]:
        """Record the files' modes; returns the files that had another one in the last build."""
        before = self.file_modes
        self.file_modes = {
            entry.path: entry.mode
            for entry in entries
            if entry.mode != _USUAL_MODE and S_ISREG(entry.mode)
        }
        other = {path for path, _ in before.items() ^ self.file_modes.items()}
        if not other:
            return set()
        return {
            number
            for number, entry in enumerate(entries)
            if entry.path in other and S_ISREG(entry.mode)
        }

    def _bury(self, path: str) -> None:
        """Move a path's announcement to those of earlier builds."""
        known = self.present.pop(path, None)
        if known and known not in (past := self.past.get(path, ())):
            self.past[path] = (*past, known)

    def _doubtful(self, entries: Sequence[ContextEntry]) -> Collection[int]:
        """The files for which BuildKit may have another content with equal metadata."""
        paths = set()
        for path in self.past.keys() & self.present.keys():
            digest, mtime = self.present[path]
            for other, then in self.past[path]:
                if other != digest and _second(then) == _second(mtime):
                    paths.add(path)
        if not paths:
            return ()
        return [number for number, entry in enumerate(entries) if entry.path in paths]

    def _outgrown(self, entries: Sequence[ContextEntry], needless: int) -> bool:
        """Whether a new generation costs less than this one.

        Args:
            entries: the context.
            needless: bytes of unchanged files to resend; each later build would resend them too.
        """
        past = self.paths > _PAST_PER_PRESENT * len(entries) + _PAST_ALLOWED
        return past or 2 * needless > sum(entry.size for entry in entries)


def _second(mtime: int) -> int:
    """The second that a disk may store for a time; two times of one such second may be equal."""
    return max(_EARLIEST, min(mtime // _SECOND, _LATEST))


def _in_one_go(mtimes: Sequence[int]) -> bool:
    """Whether files with these times, in the order of their names, come from one copy.

    `make` depends on the order of seconds. So a copy is within one second, or its times follow the
    names so steadily that a file generated after the copy would be out of order. Times finer than
    a second come from the files themselves, because faas-cli's tars have whole seconds.
    """
    seconds = [mtime // _SECOND for mtime in mtimes]
    if any(mtime % _SECOND for mtime in mtimes):
        return False
    counts = Counter(seconds)
    if len(counts) == 1:
        return True
    span = max(counts) - min(counts) + 1
    if len(seconds) < span * _FILES_A_SECOND:
        return False
    if len(counts) < span or min(counts.values()) < _FILES_IN_EACH_SECOND:
        return False
    return sum(earlier > later for earlier, later in pairwise(seconds)) < _PASSES
