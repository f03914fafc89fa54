"""What was announced of a context under one shared key, and what to announce of the next one.

Why it is done so is told in `record.py`, which keeps this between builds.
"""

import marshal
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from stat import S_ISDIR, S_ISREG
from typing import Final, NamedTuple

from function_builder.contract.context import ContextEntry

_SECOND: Final = 1_000_000_000

# The seconds that every file system stores (ext4 and xfs with small inodes).
_EARLIEST: Final = -(1 << 31)
_LATEST: Final = (1 << 31) - 1

# A copy that takes seconds writes many files in each of them, by name, folder after folder: 340 to
# 3,700 of 10,000 on a busy machine, fewer in its first and its last second. faas-cli makes two such
# passes: the template, and the function into a folder of it.
_FILES_A_SECOND: Final = 250
_FILES_IN_EACH_SECOND: Final = 20
_PASSES: Final = 4

# A record that is mostly of what is long past (names with a hash in them, new in every build, or
# times that are) costs more than the transfer that a new generation takes.
_PAST_PER_PRESENT: Final = 2
_PAST_ALLOWED: Final = 1000


class Announced(NamedTuple):
    """What to tell BuildKit of a context's entries, beside what they are.

    Attributes:
        mtimes: nanoseconds since the epoch, one for each entry of the context, in its order.
        resend: the numbers of the entries that BuildKit must take again, whatever it holds.
    """

    mtimes: Sequence[int]
    resend: AbstractSet[int]


@dataclass(slots=True, eq=False)
class Contents:
    """What was announced of files and directories under a key.

    Symbolic links are not in it: their target, which is their content, is compared by BuildKit.
    """

    # By path, as the last build announced it: the content's digest, and the mtime.
    present: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    # The same, of all builds before.
    past: dict[str, tuple[tuple[bytes, int], ...]] = field(default_factory=dict)
    directory_modes: dict[str, int] = field(default_factory=dict)
    # The newest file's mtime in the last build's tar.
    newest: int = 0

    @classmethod
    def unpack(cls, packed: bytes) -> "Contents":
        """Undo `pack`; of no bytes nothing was announced."""
        return cls(*marshal.loads(packed)) if packed else cls()  # noqa: S302 (never left us)

    def pack(self) -> bytes:
        """Itself in a third of the memory, for the time between two builds."""
        return marshal.dumps((self.present, self.past, self.directory_modes, self.newest))

    @property
    def paths(self) -> int:
        """How much is remembered, in paths."""
        past = sum(map(len, self.past.values()))
        return len(self.present) + past + len(self.directory_modes)

    def fresh_copy(self, entries: Sequence[ContextEntry], digests: Sequence[bytes]) -> bool:
        """Whether the context's times say only when it was copied, since the last build.

        They do if all files are newer than the newest was then, and were written in one go. They do
        not if a `.pyc` is among the changed ones: it was compiled, and names its source's time.
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
        """Record a context and say what to announce; None if this generation cannot carry it.

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
        return Announced(mtimes, resend)

    def _unlike(
        self,
        entries: Sequence[ContextEntry],
        digests: Sequence[bytes],
        mtimes: list[int],
        *,
        fresh: bool,
    ) -> Mapping[int, Sequence[int]]:
        """Find the files with several names, by link group, and those that changed, by themselves.

        An unchanged file of a fresh copy gets its time before.
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
    ) -> AbstractSet[int]:
        """Record files, each with all its names; give those that keep a time that time.

        Returns:
            The numbers of the others.
        """
        changed: set[int] = set()
        for numbers in groups:
            paths = [entries[number].path for number in numbers]
            told = (digests[numbers[0]], mtimes[numbers[0]])
            # One file, one time: the old one only if it is that of all names.
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
        """Record the directories' modes; False if one ever had another."""
        return all(
            self.directory_modes.setdefault(entries[number].path, entries[number].mode)
            == entries[number].mode
            for number in directories
        )

    def _bury(self, path: str) -> None:
        """Move what was announced of a path to the past."""
        known = self.present.pop(path, None)
        if known and known not in (past := self.past.get(path, ())):
            self.past[path] = (*past, known)

    def _doubtful(self, entries: Sequence[ContextEntry]) -> Collection[int]:
        """The files of which BuildKit may hold another content under what it compares."""
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
        """Whether a new generation costs less than to go on with this one.

        Args:
            entries: the context.
            needless: bytes to resend that did not change; so it would be in each build from now on.
        """
        past = self.paths > _PAST_PER_PRESENT * len(entries) + _PAST_ALLOWED
        return past or 2 * needless > sum(entry.size for entry in entries)


def _second(mtime: int) -> int:
    """What a disk may make of a time: two times of one such second may become one."""
    return max(_EARLIEST, min(mtime // _SECOND, _LATEST))


def _in_one_go(mtimes: Sequence[int]) -> bool:
    """Whether files with these times, in the order of their names, come from one copy.

    The order of seconds means something to `make`, so a copy lies within one of them. Or it is so
    steady and orderly that a file which was generated after the copy would stand out. Times finer
    than a second come from the files themselves, not from faas-cli, whose tars have seconds.
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


def in_directories(entries: Sequence[ContextEntry], digests: Sequence[bytes], view: bytes) -> bytes:
    """Digest what BuildKit would move a directory's mtime for, if it were another.

    All that lies in directories; their modes, not their mtimes; and what says which of it BuildKit
    looks at, since it deletes the rest: Dockerfiles and ignore files beside `view`.
    """
    inside = [
        (path, mode, size, 0 if S_ISDIR(mode) else mtime, target, group, digest)
        for (path, mode, size, mtime, target, group, _), digest in zip(
            entries, digests, strict=True
        )
        if "/" in path or S_ISDIR(mode) or "docker" in path.lower()
    ]
    return sha256(view + marshal.dumps(inside)).digest()
