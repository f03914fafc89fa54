"""A model of how BuildKit receives a build context and finds the steps that it has built before.

As fsutil's `receive.go`, `diff_containerd.go` and `diskwriter.go` and BuildKit's
`source/local/source.go` and `cache/contenthash/checksum.go` have it, their faults included:

- what is held under a shared key is compared by mode, size, mtime and link name, never by content,
  and the mtime is the one that the disk made of it;
- a directory's mode and mtime are set on disk without a word to the checksums, the mtime only if
  the mode differs; and what is then replaced in it moves its mtime, unless it is new;
- a hard link takes the place of a name by rename(2), which does nothing, and leaves its temporary
  name behind, where both already are the same file;
- content arrives after the names, in any order; the checksums are stored at the end, so that a
  transfer which breaks leaves new files beside old checksums;
- a step is found again by checksums alone.

Where the real one has a choice (which of a key's states to go on from), the model takes any.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from stat import S_ISDIR, S_ISLNK, S_ISREG

from function_builder.contract.context import ContextEntry

MOVED = -1 << 80
"""The mtime of a directory in which something was replaced: the transfer's time."""


def exact(mtime: int) -> int:
    """A disk that holds each time."""
    return mtime


def seconds(mtime: int) -> int:
    """A disk that rounds down to seconds, of which it holds 32 bits."""
    return max(-(2**31), min(mtime // 10**9, 2**31 - 1)) * 10**9


DISKS = (exact, seconds)


@dataclass(eq=False)
class Inode:
    mode: int
    mtime: int
    content: bytes = b""

    @property
    def size(self) -> int:
        return 0 if S_ISDIR(self.mode) else len(self.content)


@dataclass
class State:
    """What is held under a shared key: a tree, and the checksums of what is in it."""

    names: dict[str, Inode] = field(default_factory=dict)
    sums: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def listing(self) -> dict[str, tuple[int, bytes, frozenset[str]]]:
        return {
            path: (
                inode.mode,
                inode.content,
                frozenset(name for name, other in self.names.items() if other is inode),
            )
            for path, inode in self.names.items()
        }

    def mtimes(self) -> dict[str, int]:
        return {path: inode.mtime for path, inode in self.names.items()}


@dataclass(frozen=True)
class Announced:
    """One STAT; `resend` stands for a bit of the mode that nothing on a disk has."""

    path: str
    mode: int
    size: int
    mtime: int
    link: str
    content: bytes
    resend: bool = False

    def same(self, inode: Inode, link: str) -> bool:
        if self.resend:
            return False
        if S_ISDIR(self.mode):
            return inode.mode == self.mode
        held = (inode.mode, inode.size, inode.mtime, link)
        return held == (self.mode, self.size, self.mtime, self.link)


def announced(
    told: Sequence[tuple[ContextEntry, int, bool]], contents: Mapping[str, bytes]
) -> list[Announced]:
    """The STATs for a context, or the part of it that a build looks at.

    Args:
        told: entries, each with its mtime, and whether it is to be resent.
        contents: of the files.
    """
    first: dict[int, str] = {}
    stats = []
    for entry, mtime, resend in told:
        link = first.setdefault(entry.link_group, entry.path) if entry.link_group else ""
        link = entry.target or ("" if link == entry.path else link)
        content = entry.target.encode() or contents.get(entry.path, b"")
        stats.append(Announced(entry.path, entry.mode, entry.size, mtime, link, content, resend))
    return stats


@dataclass
class Transfer:
    """One DiffCopy into `state`, a step at a time; `requested` are the REQs so far."""

    state: State
    stats: Sequence[Announced]
    choice: random.Random
    disk: Callable[[int], int] = exact
    requested: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._made: dict[str, int] = {}
        self._sums = dict(self.state.sums)
        self._links: dict[str, list[str]] = {}
        self._pending: list[tuple[Announced, Inode]] = []

    def steps(self) -> Iterator[None]:
        """Everything that changes the disk; the checksums are stored with the last step."""
        links = self._held_links()
        held = dict(self.state.names)
        coming = {stat.path: stat for stat in self.stats}
        for path in sorted(held.keys() | coming.keys(), key=lambda path: path.replace("/", "\0")):
            if path not in coming:
                self._delete(path)
            elif path not in held or not coming[path].same(held[path], links[path]):
                self._change(coming[path])
            yield
            while self._pending and self.choice.random() < 0.3:
                self._receive()
                yield
        while self._pending:
            self._receive()
            yield
        for path, mtime in self._made.items():
            self.state.names[path].mtime = mtime
        self.state.sums = self._sums

    def _held_links(self) -> dict[str, str]:
        """The link names that a walk over the disk finds."""
        first: dict[int, str] = {}
        links = {}
        for path, inode in sorted(
            self.state.names.items(), key=lambda item: item[0].replace("/", "\0")
        ):
            links[path] = inode.content.decode() if S_ISLNK(inode.mode) else ""
            if S_ISREG(inode.mode) and first.setdefault(id(inode), path) != path:
                links[path] = first[id(inode)]
        return links

    def _move(self, path: str) -> None:
        """Something is put into a directory, or taken out of it."""
        if parent := self.state.names.get(path.rpartition("/")[0]):
            parent.mtime = MOVED

    def _delete(self, path: str) -> None:
        self._move(path)
        for mapping in (self.state.names, self._sums):
            for name in [name for name in mapping if f"{name}/".startswith(f"{path}/")]:
                del mapping[name]

    def _change(self, stat: Announced) -> None:
        old = self.state.names.get(stat.path)
        mtime = self.disk(stat.mtime)
        if S_ISDIR(stat.mode) and old and S_ISDIR(old.mode):
            old.mode, old.mtime = stat.mode, mtime
            return
        self._move(stat.path)
        if S_ISDIR(stat.mode):
            self._made[stat.path] = mtime
            self.state.names[stat.path] = Inode(stat.mode, mtime)
            self._sums[stat.path] = (stat.mode, b"")
            return
        if old and S_ISDIR(old.mode):
            self._delete(stat.path)
        if S_ISLNK(stat.mode):
            self.state.names[stat.path] = Inode(stat.mode, mtime, stat.content)
            self._sums[stat.path] = (stat.mode, stat.content)
        elif stat.link:
            self._link(stat, old)
        else:
            inode = Inode(stat.mode, mtime)
            self.state.names[stat.path] = inode
            self._pending.append((stat, inode))
            self.requested.append(stat.path)

    def _link(self, stat: Announced, old: Inode | None) -> None:
        inode = self.state.names[stat.link]
        inode.mode, inode.mtime = stat.mode, self.disk(stat.mtime)
        name = f".tmp.{stat.path}" if old is inode else stat.path
        self.state.names[name] = inode
        self._sums[stat.path] = self._sums.get(stat.link, (stat.mode, b""))
        self._links.setdefault(stat.link, []).append(stat.path)

    def _receive(self) -> None:
        stat, inode = self._pending.pop(self.choice.randrange(len(self._pending)))
        inode.content, inode.mtime = stat.content, self.disk(stat.mtime)
        for path in (stat.path, *self._links.pop(stat.path, ())):
            self._sums[path] = (stat.mode, stat.content)


@dataclass
class BuildKit:
    """All that one daemon keeps: states by shared key, and steps by checksums."""

    choice: random.Random
    disk: Callable[[int], int] = exact
    states: dict[str, list[State]] = field(default_factory=dict)
    steps: dict[frozenset[tuple[str, tuple[int, bytes]]], State] = field(default_factory=dict)

    def begin(self, key: str, stats: Sequence[Announced], *, latest: bool = False) -> Transfer:
        """Take one of the key's states, or none, and go on from it."""
        states = self.states.get(key, [])
        if latest:
            held = states[-1] if states else State()
        else:
            held = self.choice.choice([*states, State()])
        return Transfer(deepcopy(held), stats, self.choice, self.disk)

    def keep(self, key: str, transfer: Transfer) -> None:
        self.states.setdefault(key, []).append(transfer.state)

    def copy(self, transfer: Transfer) -> State:
        """`COPY . /`: the step that has the same checksums, or a new one."""
        found = frozenset(transfer.state.sums.items())
        return self.steps.setdefault(found, deepcopy(transfer.state))
