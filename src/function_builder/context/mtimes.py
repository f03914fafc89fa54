"""What BuildKit is told of a context's times, so that it builds the tar and asks for little.

BuildKit keeps, under a shared key, what earlier builds sent. It asks again only for an entry whose
mode, size, mtime or link name differs (fsutil's `diff_containerd.go`, `sameFile`). Two contents of
one size and time are the same to it. It may hold any earlier state of a key, or none
(`source/local/source.go`: a state that a build still uses is passed over).

**The image depends on the tar alone.** So each time is announced as the tar has it. A file that
BuildKit could take for another content that it holds is marked to be resent (`Entry.resend`): one
of which another content was announced under this key, with a time that a disk may make the same.
A mark costs one REQ and changes no time, so `make`, autotools and `.pyc` files see the tar's times.

**Times that are noise** are the exception. faas-cli copies a function again for each build, and all
of it would travel each time. An unchanged file of a fresh copy keeps the time that was announced
before; a changed one has the tar's. `Contents.fresh_copy` says what a fresh copy is,
docs/architecture.md why.

What else could make a wrong image:

- *File systems round times down and cap them.* Two times count as one where they lie in one second,
  or both after 2038, or both before 1901.
- *A path that vanished* stays in the record, because BuildKit may go back to a state that has it.
- *Names that share a file* share its mtime on BuildKit's disk. They are announced with one time,
  and all of them are marked if one must be.
- *A directory's other mode* is set on BuildKit's disk, but not in the checksum by which it finds
  built steps. A mode other than the path ever had takes a new key.
- *A directory's mtime* is not compared. Each directory is marked, so that BuildKit sets it. But
  what is then replaced in the directory moves its mtime to the time of the transfer. Where the
  image must be reproducible, such a change takes a new key (`view`).
- *A transfer that broke*, or a BuildKit that died before it had stored the checksums of what it
  got, may leave files beside checksums of others. A key is used on only if BuildKit said that it
  has stored all (`ContextLoads`).
- *A cache mount* may hold what another build made of other content, with a newer time than the old
  one of a file that is back. A copy is fresh only if the function's last build had the same key.

A key, with what was announced under it, is a generation. It is leased to one build at a time: a
build that starts while another of the same function runs gets another generation, so that nothing
that happens to one can be seen by the other.
"""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from function_builder.context.contents import Announced, Contents, in_directories
from function_builder.contract.context import ContextEntry

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
        # The shared key of each function's last build.
        self._last: dict[str, str] = {}
        self._era = object()
        self._lock = Lock()

    @property
    def paths(self) -> int:
        """How many paths are remembered."""
        return self._paths

    def lease(
        self,
        function: str | None,
        entries: Sequence[ContextEntry],
        digests: Sequence[bytes],
        *,
        view: bytes = b"",
    ) -> "Lease":
        """Decide what to announce for a build, and keep others from its shared key until it ends.

        Args:
            function: whose earlier transfers may be reused; None for a build on its own.
            entries: the build context.
            digests: of each entry's content, as `content_digests` gives them.
            view: not empty if the image must be reproducible: no time is noise then, and
                directories have the tar's. It stands for all that decides, beside the entries,
                which of them BuildKit looks at.
        """
        settled = in_directories(entries, digests, view) if view else b""
        generation, last = self._take(function)
        if generation is None or (settled and generation.settled != settled):
            generation, last = _Generation(self._era), False
        contents = Contents.unpack(generation.packed)
        fresh = last and not view and contents.fresh_copy(entries, digests)
        announced = contents.announce(entries, digests, fresh=fresh)
        if announced is None:
            generation, contents = _Generation(self._era), Contents()
            announced = contents.announce(entries, digests, fresh=False)
        assert announced is not None, "a new generation takes anything"
        generation.settled = settled
        generation.paths, generation.packed = contents.paths, contents.pack()
        if function is not None:
            with self._lock:
                self._last[function] = generation.shared_key
        return Lease(self, function, generation, announced)

    def forget(self) -> None:
        """Use no generation of before again: BuildKit may have lost some of what it had."""
        with self._lock:
            self._era = object()
            self._idle.clear()
            self._last.clear()
            self._paths = 0

    def give_back(self, function: str, generation: "_Generation", *, intact: bool) -> None:
        """End a lease; keep its generation for the function's next build if it is intact."""
        with self._lock:
            if generation.era is not self._era:
                return
            if not intact:
                if function not in self._idle:
                    self._last.pop(function, None)
                return
            self._idle.setdefault(function, []).append(generation)
            self._idle.move_to_end(function)
            self._paths += generation.paths
            while self._paths > self.max_paths:
                oldest, idle = next(iter(self._idle.items()))
                self._paths -= idle.pop(0).paths
                if not idle:
                    del self._idle[oldest]
                    self._last.pop(oldest, None)

    def _take(self, function: str | None) -> "tuple[_Generation | None, bool]":
        """A generation of the function's, if there is one, and whether its last build had it."""
        with self._lock:
            if function is None or function not in self._idle:
                return None, False
            idle = self._idle[function]
            # The latest: BuildKit most likely still has it, and its files are the most alike.
            generation = idle.pop()
            self._paths -= generation.paths
            if not idle:
                del self._idle[function]
            return generation, self._last.get(function) == generation.shared_key


class Lease:
    """A shared key that one build has to itself, and what to announce under it.

    Attributes:
        shared_key: for the build's session.
        announced: the context's times, and what is to be resent.
    """

    def __init__(
        self,
        records: ContentRecords,
        function: str | None,
        generation: "_Generation",
        announced: Announced,
    ) -> None:
        self.shared_key = generation.shared_key
        self.announced = announced
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
        if generation and self._function is not None:
            self._records.give_back(self._function, generation, intact=intact)


@dataclass(slots=True, eq=False)
class _Generation:
    """A shared key, and all that was ever announced under it, in one era of BuildKit's.

    `settled` is what `in_directories` gave for each build under it; empty if it gave several.
    """

    era: object
    shared_key: str = field(default_factory=lambda: secrets.token_hex(16))
    settled: bytes = b""
    paths: int = 0
    packed: bytes = b""
