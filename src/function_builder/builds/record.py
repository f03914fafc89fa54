"""Which mtimes BuildKit is told, so that it never builds old content and never asks for known.

BuildKit keeps, under a shared key, what earlier builds sent, and asks again only for an entry whose
mode, size, mtime or link name differs (fsutil's `diff_containerd.go`, `sameFile`). A tar's mtimes
are no proof of content, and are new for content that is not. So they are replaced: content that was
announced under a key before keeps the mtime that it had then, any other gets one that is later than
all that its path ever had under this key.

Why that is enough, whatever BuildKit does:

- It may hold several states of a key and take any of them, or none (`source/local/source.go`: a
  state that a build still uses is passed over). So what is remembered is all that was ever
  announced under the key: a path that vanished from the context stays in the record.
- File systems round mtimes down and cap them. A later mtime differs from an earlier one, rounded or
  capped, but perhaps not from one raised to the least that can be stored: so none is below that.
- Names that share a file share its mtime on BuildKit's disk: a group gets one mtime, the old one
  only if all its names have the same record.
- Of a directory whose mode alone changes, BuildKit changes the mode on disk, but not the checksum
  by which it finds built steps. A mode other than the path ever had takes a new key.
- A transfer that broke, or a BuildKit that died before it had stored the checksums of what it got,
  may leave files beside checksums of others. A key is used on only if BuildKit said that it has
  stored all (`ContextLoads`).

A key, with what was announced under it, is a generation. It is leased to one build at a time: a
build that starts while another of the same function runs gets another generation, so that nothing
that happens to one can be seen by the other.
"""

import marshal
import secrets
import stat
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from function_builder.contract.context import ContextEntry

# The least time that ext4 and xfs can store, and the largest that BuildKit's protocol carries.
_EARLIEST: Final = -(1 << 31) * 1_000_000_000
_LATEST: Final = (1 << 63) - 1

# A record that is mostly of paths long gone (names with a hash in them, new in every build) costs
# more than the transfer that a new generation takes.
_PAST_PER_PRESENT: Final = 2
_PAST_ALLOWED: Final = 1000

MAX_PATHS: Final = 250_000
"""Paths to remember, unless something else is said; one takes about 100 bytes."""


class ContentRecords:
    """The generations that no build holds at the moment, of all functions.

    Args:
        max_paths: how many paths to remember at most, all functions together; the functions built
            longest ago are forgotten first, which costs each a full transfer. It may be changed.

    Methods may be called from any thread.
    """

    def __init__(self, *, max_paths: int = MAX_PATHS) -> None:
        self.max_paths = max_paths
        self._paths = 0
        self._idle: OrderedDict[str, list[_Generation]] = OrderedDict()
        self._era = object()
        self._lock = Lock()

    @property
    def paths(self) -> int:
        """How many paths are remembered."""
        return self._paths

    def lease(
        self, function: str | None, entries: Sequence[ContextEntry], digests: Sequence[bytes]
    ) -> "Lease":
        """Decide what to announce for a build, and keep others from its shared key until it ends.

        Args:
            function: whose earlier transfers may be built upon; None for a build on its own.
            entries: the build context.
            digests: of each entry's content, as `content_digests` gives them.
        """
        generation = self._take(function) or _Generation(self._era)
        contents = _Contents.unpack(generation.packed)
        mtimes = contents.announce(entries, digests)
        if mtimes is None:
            generation, contents = _Generation(self._era), _Contents()
            mtimes = contents.announce(entries, digests)
        assert mtimes is not None, "a new generation takes anything"
        generation.paths, generation.packed = contents.paths, contents.pack()
        return Lease(self, function, generation, mtimes)

    def forget(self) -> None:
        """Use no generation of before again: BuildKit may have lost some of what it had."""
        with self._lock:
            self._era = object()
            self._idle.clear()
            self._paths = 0

    def give_back(self, function: str, generation: "_Generation") -> None:
        """Keep a generation for the function's next build."""
        with self._lock:
            if generation.era is not self._era:
                return
            self._idle.setdefault(function, []).append(generation)
            self._idle.move_to_end(function)
            self._paths += generation.paths
            while self._paths > self.max_paths:
                oldest, idle = next(iter(self._idle.items()))
                self._paths -= idle.pop(0).paths
                if not idle:
                    del self._idle[oldest]

    def _take(self, function: str | None) -> "_Generation | None":
        with self._lock:
            if function is None or function not in self._idle:
                return None
            idle = self._idle[function]
            # The latest: BuildKit most likely still has it, and its files are the most alike.
            generation = idle.pop()
            self._paths -= generation.paths
            if not idle:
                del self._idle[function]
            return generation


class Lease:
    """A shared key that one build has to itself, and the mtimes to announce under it.

    Attributes:
        shared_key: for the build's session.
        mtimes: nanoseconds since the epoch, one for each entry of the context, in its order.
    """

    def __init__(
        self,
        records: ContentRecords,
        function: str | None,
        generation: "_Generation",
        mtimes: Sequence[int],
    ) -> None:
        self.shared_key = generation.shared_key
        self.mtimes = mtimes
        self._records = records
        self._function = function
        self._generation: _Generation | None = generation

    def release(self, *, intact: bool) -> None:
        """End the lease: nothing is announced under its key any more. Only the first call acts.

        Args:
            intact: whether BuildKit is known to have stored each transfer of the context that
                began, and the build ended by a Solve reply or by our own cancel. Anything else,
                above all a lost connection, is not.
        """
        generation, self._generation = self._generation, None
        if generation and intact and self._function is not None:
            self._records.give_back(self._function, generation)


@dataclass(slots=True, eq=False)
class _Generation:
    """A shared key, and all that was ever announced under it, in one era of BuildKit's."""

    era: object
    shared_key: str = field(default_factory=lambda: secrets.token_hex(16))
    paths: int = 0
    packed: bytes = b""


@dataclass(slots=True, eq=False)
class _Contents:
    """What was announced under a key."""

    # Files and symbolic links: the content's digest and its mtime. A path may be in both.
    contents: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    directory_modes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def unpack(cls, packed: bytes) -> "_Contents":
        """Undo `pack`; of no bytes nothing was announced."""
        return cls(*marshal.loads(packed)) if packed else cls()  # noqa: S302 (never left us)

    def pack(self) -> bytes:
        """Itself in a third of the memory, for the time between two builds."""
        return marshal.dumps((self.contents, self.directory_modes))

    @property
    def paths(self) -> int:
        return len(self.contents) + len(self.directory_modes)

    def announce(
        self, entries: Sequence[ContextEntry], digests: Sequence[bytes]
    ) -> list[int] | None:
        """Record a context and return its mtimes; None if this generation cannot carry it."""
        mtimes = [max(_EARLIEST, min(entry.mtime, _LATEST)) for entry in entries]
        groups: dict[int, list[int]] = {}
        for number, entry in enumerate(entries):
            if stat.S_ISDIR(entry.mode):
                if self.directory_modes.setdefault(entry.path, entry.mode) != entry.mode:
                    return None
            elif entry.link_group:
                groups.setdefault(entry.link_group, []).append(number)
            elif (known := self.contents.get(entry.path)) and known[0] == digests[number]:
                mtimes[number] = known[1]
            else:
                groups[-number - 1] = [number]
        for numbers in groups.values():
            paths = [entries[number].path for number in numbers]
            digest = digests[numbers[0]]
            mtime = self._mtime(paths, digest, mtimes[numbers[0]])
            if mtime > _LATEST:
                return None
            record = (digest, mtime)
            for number, path in zip(numbers, paths, strict=True):
                mtimes[number] = mtime
                self.contents[path] = record
        if self.paths > _PAST_PER_PRESENT * len(entries) + _PAST_ALLOWED:
            return None
        return mtimes

    def _mtime(self, paths: Sequence[str], digest: bytes, given: int) -> int:
        """The mtime for one file that has all these names."""
        known = {self.contents.get(path) for path in paths}
        records = [record for record in known if record]
        if len(known) == len(records) == 1 and records[0][0] == digest:
            return records[0][1]
        return max([given, *(mtime + 1 for _, mtime in records)])
