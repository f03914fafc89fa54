"""The mtimes to announce for a context, so that BuildKit builds the tar and requests few files.

BuildKit stores the files of earlier builds under a shared key. It only requests an entry whose
mode, size, mtime or link name differs (fsutil's `diff_containerd.go`, `sameFile`). Two contents
with equal size and time are the same to it. It may have any earlier state of a key, or none
(`source/local/source.go` skips a state that a build still uses).

**The image only depends on the tar.** So the announced times are the tar's. A file that BuildKit
could confuse with another content is announced with `Entry.resend`. That is a file of which another
content was announced under this key, with a time that a disk may store as the same. It costs one
REQ and does not change the time, so `make`, autotools and `.pyc` files see the tar's times.

**A fresh copy** is the exception. faas-cli copies a function for each build, and all files would be
sent each time. An unchanged file of a fresh copy keeps its previous time, and a changed one has the
tar's. `Contents.fresh_copy` has the definition, and docs/architecture.md the reason.

Other causes of a wrong image:

- *File systems round times down and limit them.* Two times count as equal if they are in one
  second, both after 2038, or both before 1901.
- *A deleted path* stays in the record, because BuildKit may return to a state that has it.
- *Names of one file* share its mtime on BuildKit's disk. They are announced with one time, and if
  one must be resent, all are.
- *A changed mode of a directory* is set on BuildKit's disk, but not in the checksum of its cache. A
  mode that the path did not have before needs a new key.
- *A directory's mtime* is not compared. Each directory is announced with `resend`, so that BuildKit
  sets it. But if a file in the directory is then replaced, its mtime becomes the time of the
  transfer. If the image must be reproducible, such a change needs a new key (`view`).
- *An interrupted transfer*, or a BuildKit that died before it stored the checksums, may leave files
  with checksums of other contents. A key is only used again if BuildKit reported that it has stored
  all (`ContextLoads`).
- *A cache mount* may contain objects of other content, with a newer time than that of a file that
  returned to an old version. A copy is only fresh if the function's last build had the same key.

A key with its announcements is a generation. It is leased to one build at a time. A concurrent
build of the same function gets another generation, so that one build cannot affect the other.

**An unchanged context** is not announced. BuildKit stores each directory under the ID of the
session that sent it, and a build may name an earlier session for a directory (`local-sessionid:` in
`frontend/dockerui/config.go`). So a generation remembers the last context that was announced, and
its session. A build of the same context names that session, and BuildKit uses what it has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from functools import cached_property, partial
from threading import Lock
from typing import Final

from function_builder.context.contents import Announced, Contents
from function_builder.context.fingerprint import Fingerprint
from function_builder.context.generations import Generation, Sent
from function_builder.context.predictions import Prediction, announce_again, predict
from function_builder.contract.context import ContextEntry

MAX_PATHS: Final = 250_000
"""The default number of paths to remember; one takes about 100 bytes."""


class ContentRecords:
    """The generations of all functions that are not leased.

    Args:
        max_paths: the most paths of all functions together. The functions built longest ago are
            forgotten first, which costs each a full transfer. It may be changed.

    Methods may be called from any thread.
    """

    def __init__(self, *, max_paths: int = MAX_PATHS) -> None:
        self.max_paths = max_paths
        self._paths = 0
        self._idle: OrderedDict[str, list[Generation]] = OrderedDict()
        # The shared key of each function's last build.
        self._last: dict[str, str] = {}
        self._predicted: Prediction | None = None
        self._era = object()
        self._lock = Lock()

    @property
    def paths(self) -> int:
        """The number of paths that are remembered."""
        return self._paths

    @property
    def era(self) -> object:
        """Another object after each `forget`."""
        return self._era

    def offered(self, cache_scope: str) -> int:
        """The version of the function's generation that is offered to all; 0: there is none."""
        with self._lock:
            idle = self._idle.get(cache_scope, ())
            return max((generation.version for generation in idle), default=0)

    def withdraw(self, cache_scope: str, *, own: bool) -> None:
        """Stop offering the function's idle generation.

        Args:
            cache_scope: the function's.
            own: whether this builder alone has it now. Otherwise it is discarded.
        """
        with self._lock:
            idle = self._idle.get(cache_scope, [])
            for generation in [each for each in idle if each.version]:
                generation.version = 0
                idle.remove(generation)
                if own:
                    # The next build leases the last one.
                    idle.append(generation)
                else:
                    self._paths -= generation.paths
            if cache_scope in self._idle and not idle:
                del self._idle[cache_scope]
                self._last.pop(cache_scope, None)

    def adopt(self, cache_scope: str, generation: Generation) -> None:
        """Keep a generation of another builder, whose build was the function's last one."""
        with self._lock:
            self._last[cache_scope] = generation.shared_key
        self.give_back(cache_scope, generation, intact=True)

    def lease(
        self,
        cache_scope: str | None,
        entries: Sequence[ContextEntry],
        digests: Sequence[bytes],
        *,
        view: bytes = b"",
        absent: Collection[int] = (),
        whole: Fingerprint | None = None,
    ) -> Lease:
        """Lease a generation for a build, with its announcement, until the build ends.

        Args:
            cache_scope: `{trust_domain}/{repository}`, whose earlier transfers may be reused; None:
                there are none.
            entries: the build context.
            digests: of each entry's content, from `content_digests`.
            view: not empty if the image must be reproducible. Then no tar is a fresh copy, and
                directories have the tar's times. It represents the inputs, except the entries,
                that decide which entries BuildKit reads.
            absent: the numbers of the files whose content the client did not send.
            whole: the fingerprint of all that BuildKit can read; None: BuildKit must read it.

        Raises:
            NotHeld: BuildKit would ask for some of these. The record is as before.
        """
        held, last = self._acquire(cache_scope)
        prediction, self._predicted = self._predicted, None
        if held is not None and held.sent.is_again(whole):
            self._remember(cache_scope, held)
            announce = partial(announce_again, held, entries, digests, view)
            return Lease(self, cache_scope, held, announce, session=held.sent.session)
        if prediction is None or not prediction.holds(held, entries, digests, view, last=last):
            prediction = predict(held, entries, digests, view, last=last)
        announced, contents = prediction.announced, prediction.contents
        generation = held
        if generation is None or announced is None:
            generation, contents = Generation(self._era), Contents()
            announced = contents.announce(entries, digests, fresh=False)
        assert announced is not None, "a new generation accepts every context"
        session = prediction.session(whole)
        if not session and (missing := [each for each in absent if each in announced.requested]):
            if held is not None and cache_scope is not None:
                self.give_back(cache_scope, held, intact=True)
            raise NotHeld(missing)
        generation.settled = prediction.settled
        generation.paths, generation.packed = contents.paths, contents.pack()
        if not session:
            generation.sent = _sent(whole, entries, announced)
        self._remember(cache_scope, generation)
        return Lease(self, cache_scope, generation, lambda: announced, session=session)

    def missing(
        self,
        cache_scope: str,
        entries: Sequence[ContextEntry],
        digests: Sequence[bytes],
        *,
        view: bytes = b"",
        absent: Collection[int],
        whole: Fingerprint | None = None,
    ) -> Collection[int]:
        """The files for which `lease` would raise NotHeld now; nothing is leased or recorded."""
        with self._lock:
            idle = self._idle.get(cache_scope)
            generation = idle[-1] if idle else None
            last = generation and self._last.get(cache_scope) == generation.shared_key
        if generation is None:
            return absent
        if generation.sent.is_again(whole):
            return ()
        prediction = predict(generation, entries, digests, view, last=bool(last))
        # The build follows, mostly at once: it need not do the same again.
        self._predicted = prediction
        announced = prediction.announced
        if prediction.session(whole):
            return ()
        if announced is None:
            return absent
        return [number for number in absent if number in announced.requested]

    def forget(self) -> None:
        """Discard all generations, because BuildKit may have lost files."""
        with self._lock:
            self._era = object()
            self._idle.clear()
            self._last.clear()
            self._predicted = None
            self._paths = 0

    def give_back(self, cache_scope: str, generation: Generation, *, intact: bool) -> None:
        """End a lease; keep its generation for the function's next build if intact."""
        with self._lock:
            if generation.era is not self._era:
                return
            if not intact:
                if cache_scope not in self._idle:
                    self._last.pop(cache_scope, None)
                return
            idle = self._idle.setdefault(cache_scope, [])
            if any(each.shared_key == generation.shared_key for each in idle):
                # Its offer was read between its writing and now.
                return
            idle.append(generation)
            self._idle.move_to_end(cache_scope)
            self._paths += generation.paths
            while self._paths > self.max_paths:
                oldest, idle = next(iter(self._idle.items()))
                self._paths -= idle.pop(0).paths
                if not idle:
                    del self._idle[oldest]
                    self._last.pop(oldest, None)

    def _remember(self, cache_scope: str | None, generation: Generation) -> None:
        """The function's last build has this generation."""
        if cache_scope is not None:
            with self._lock:
                self._last[cache_scope] = generation.shared_key

    def _acquire(self, cache_scope: str | None) -> tuple[Generation | None, bool]:
        """A generation of the function, if there is one, and whether its last build used it."""
        with self._lock:
            idle = self._idle.get(cache_scope, []) if cache_scope is not None else []
            # The latest, because BuildKit most likely still has it, and its files are most similar.
            # One that is offered to other builders has to be claimed first.
            generation = next((each for each in reversed(idle) if not each.version), None)
            if cache_scope is None or generation is None:
                return None, False
            idle.remove(generation)
            self._paths -= generation.paths
            if not idle:
                del self._idle[cache_scope]
            return generation, self._last.get(cache_scope) == generation.shared_key


class NotHeld(Exception):
    """BuildKit does not have a content that the client did not send.

    Attributes:
        numbers: of the entries.
    """

    def __init__(self, numbers: Collection[int]) -> None:
        super().__init__(f"{len(numbers)} files are not held")
        self.numbers = numbers


class Lease:
    """A shared key that is leased to one build, and the announcement under it.

    Attributes:
        shared_key: for the build's session.
        session: the earlier session that sent BuildKit the same; empty: there is none.
    """

    def __init__(
        self,
        records: ContentRecords,
        cache_scope: str | None,
        generation: Generation,
        announce: Callable[[], Announced],
        *,
        session: str = "",
    ) -> None:
        self.shared_key = generation.shared_key
        self.session = session
        self._records = records
        self._cache_scope = cache_scope
        self._generation: Generation | None = generation
        self._announce = announce

    @cached_property
    def announced(self) -> Announced:
        """The context's times, and the entries to resend; with `session` only if BuildKit asks."""
        return self._announce()

    @property
    def generation(self) -> Generation | None:
        """What is leased; None after the end of the lease."""
        return self._generation

    def send_in(self, session: str) -> None:
        """The context is announced in this session. With `session`, it is not sent."""
        if self._generation and not self.session:
            self._generation.sent = self._generation.sent._replace(session=session)

    def release(self, *, intact: bool) -> None:
        """End the lease. Only the first call has an effect.

        Args:
            intact: whether BuildKit has stored each transfer of the context, and the build ended
                with a Solve reply or with our cancel. Every other end, such as a lost connection,
                is not intact.
        """
        generation, self._generation = self._generation, None
        if generation and self._cache_scope is not None:
            self._records.give_back(self._cache_scope, generation, intact=intact)


def _sent(whole: Fingerprint | None, entries: Sequence[ContextEntry], announced: Announced) -> Sent:
    """What BuildKit gets by an announcement; its session is not known yet."""
    if whole is None:
        return Sent()
    as_it_is = all(each.mtime == told for each, told in zip(entries, announced.mtimes, strict=True))
    return Sent("", whole.exact if as_it_is else b"", whole.timeless)
