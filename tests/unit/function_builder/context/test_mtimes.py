import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from stat import S_IFDIR, S_IFLNK, S_IFREG, S_ISDIR, S_ISREG
from typing import Any
from unittest.mock import ANY, patch

import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
    run_state_machine_as_test,
)

from function_builder.context import contents as contents_module
from function_builder.context.contents import Announced, Contents
from function_builder.context.fingerprint import Fingerprint, fingerprint
from function_builder.context.mtimes import ContentRecords, Lease, NotHeld
from function_builder.contract.context import ContextEntry
from tests.unit.function_builder.context.receiver import (
    DISKS,
    BuildKit,
    Transfer,
    announced,
    exact,
    seconds,
)

SECOND = 10**9
LATEST = 2**63 - 1


@dataclass
class Context:
    """A build context as a tar has it, with what is in its files."""

    entries: list[ContextEntry] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)

    def folder(self, path: str, mode: int = 0o755, mtime: int = 0) -> "Context":
        self.entries.append(ContextEntry(path, S_IFDIR | mode, 0, mtime, "", 0, 0))
        return self

    def file(
        self, path: str, content: bytes = b"", mtime: int = 0, mode: int = 0o644, group: int = 0
    ) -> "Context":
        size = len(content)
        self.entries.append(ContextEntry(path, S_IFREG | mode, size, mtime, "", group, 0))
        self.contents[path] = content
        return self

    def symlink(self, path: str, target: str, mtime: int = 0) -> "Context":
        entry = ContextEntry(path, S_IFLNK | 0o777, len(target), mtime, target, 0, 0)
        self.entries.append(entry)
        return self

    @property
    def digests(self) -> list[bytes]:
        return [
            b""
            if S_ISDIR(entry.mode)
            else sha256(self.contents.get(entry.path, b"link " + entry.target.encode())).digest()
            for entry in self.entries
        ]

    @property
    def files(self) -> dict[str, tuple[bytes, int]]:
        """Contents and times of regular files."""
        return {
            entry.path: (self.contents[entry.path], entry.mtime)
            for entry in self.entries
            if S_ISREG(entry.mode)
        }

    def listing(self, paths: set[str]) -> dict[str, tuple[int, bytes, frozenset[str]]]:
        """What an image of these paths must hold: modes, contents, names that share a file."""
        inside = [entry for entry in self.entries if entry.path in paths]
        return {
            entry.path: (
                entry.mode,
                entry.target.encode() or self.contents.get(entry.path, b""),
                frozenset(
                    other.path
                    for other in inside
                    if other is entry or 0 != other.link_group == entry.link_group
                ),
            )
            for entry in inside
        }


@dataclass(frozen=True)
class Told:
    """What a build announced: its shared key, times, and the paths that are to be resent."""

    key: str
    mtimes: dict[str, int]
    resend: set[str]


def told(lease: Lease, context: Context) -> Told:
    mtimes, resend, _ = lease.announced
    paths = [entry.path for entry in context.entries]
    return Told(
        lease.shared_key,
        dict(zip(paths, mtimes, strict=True)),
        {paths[number] for number in resend},
    )


def lease(
    records: ContentRecords, context: Context, function: str | None = "f", view: bytes = b""
) -> Lease:
    return records.lease(function, context.entries, context.digests, view=view)


def lease_in(records: ContentRecords, context: Context, session: str, **options: Any) -> Lease:
    """A lease of a build in this session, which may name an earlier one."""
    whole = fingerprint(context.entries, context.digests)
    whole = whole.beside(inputs=options.get("view", b""))
    options = {"function": "f"} | options
    held = records.lease(
        options.pop("function"), context.entries, context.digests, whole=whole, **options
    )
    held.send_in(session)
    return held


def build(
    records: ContentRecords, context: Context, function: str | None = "f", view: bytes = b""
) -> Told:
    """A whole build that ends well."""
    held = lease(records, context, function, view)
    held.release(intact=True)
    return told(held, context)


@pytest.fixture
def records() -> ContentRecords:
    return ContentRecords()


# The model: whatever BuildKit does, the image is the tar


@st.composite
def contexts(draw: st.DrawFn) -> Context:
    """Contexts that are alike enough to be taken for one another."""
    context = Context()
    shared: dict[int, tuple[bytes, int, int]] = {}
    modes = st.sampled_from((0o644, 0o644, 0o755))
    far = (-(2**31) * SECOND - 1, -(2**31) * SECOND, 2**31 * SECOND, LATEST)
    times = st.sampled_from((0, 0, 0, 1, SECOND, 2 * SECOND, *far))
    contents = st.sampled_from((b"a", b"b", b""))
    file = ("file", "file", "link", "symlink", "none")
    kinds = {"a": file, "b": file, "d": ("folder", "none"), "d/x": file, "e": (*file, "folder")}
    for path, choices in kinds.items():
        if path == "d/x" and not any(entry.path == "d" for entry in context.entries):
            continue
        kind = draw(st.sampled_from(choices))
        if kind == "folder":
            context.folder(path, draw(st.sampled_from((0o755, 0o755, 0o700))), draw(times))
        elif kind == "symlink":
            context.symlink(path, draw(st.sampled_from(("a", "b"))), draw(times))
        elif kind in ("file", "link"):
            group = draw(st.integers(1, 2)) if kind == "link" else 0
            drawn = draw(contents), draw(times), draw(modes)
            content, mtime, mode = shared.setdefault(group, drawn) if group else drawn
            context.file(path, content, mtime, mode, group)
    return context


def varied(context: Context, number: int, change: str) -> Context:
    """A context that differs from another in one thing only."""
    if not context.entries:
        return Context().file("a", b"a")
    chosen = context.entries[number % len(context.entries)]
    entries, contents = [], dict(context.contents)
    for entry in context.entries:
        same = entry is chosen or 0 != entry.link_group == chosen.link_group
        if same and change == "content" and entry.path in contents:
            contents[entry.path] = {b"a": b"b", b"b": b"a"}.get(contents[entry.path], b"a")
            entries.append(entry._replace(size=1))
        elif same and change == "mode" and not entry.target:
            entries.append(entry._replace(mode=entry.mode ^ 0o055))
        elif same and change == "mtime":
            # No archive has a time of more than 64 bits.
            step = -1 if entry.mtime == LATEST else 1
            entries.append(entry._replace(mtime=entry.mtime + step))
        elif change != "gone" or not f"{entry.path}/".startswith(f"{chosen.path}/"):
            entries.append(entry)
    paths = {entry.path for entry in entries}
    return Context(entries, {path: content for path, content in contents.items() if path in paths})


@dataclass
class Build:
    """A build that has begun.

    Attributes:
        function: its function.
        context: its context.
        lease: its lease.
        session: the one that BuildKit looks its directories up under.
    """

    function: str | None
    context: Context
    lease: Lease
    session: str = ""


@dataclass(frozen=True)
class Received:
    """What BuildKit has of a session, for a part of its context.

    Attributes:
        listing: modes, contents, and names of one file.
        mtimes: by path.
    """

    listing: Mapping[str, tuple[int, bytes, frozenset[str]]]
    mtimes: Mapping[str, int]


PATHS = st.sets(st.sampled_from(("a", "b", "d/x", "e")))


class Builds(RuleBasedStateMachine):
    """Builds of three functions, side by side, with a BuildKit that has every freedom."""

    records_type: type[ContentRecords] = ContentRecords
    tars = Bundle("tars")
    running = Bundle("running")

    @initialize(seed=st.integers(0, 2**32), disk=st.sampled_from(DISKS))
    def start(self, seed: int, disk: Callable[[int], int] = exact) -> None:
        self.records = self.records_type()
        self.buildkit = BuildKit(random.Random(seed), disk)
        # The build of whose context the key's latest state is a whole copy.
        self.sent: dict[str, Build] = {}
        # What each function's last build was, and what each key's files were announced as.
        self.last: dict[str | None, Build] = {}
        # What BuildKit received by session, and by what the build did not look at.
        self.received: dict[tuple[str, frozenset[str]], Received] = {}
        self.sessions = map(str, count(1))
        self.told: dict[str, dict[str, set[tuple[int, bytes]]]] = {}

    @rule(target=tars, context=contexts())
    def write(self, context: Context) -> Context:
        return context

    @rule(
        target=tars,
        context=tars,
        number=st.integers(0, 4),
        change=st.sampled_from(("content", "mode", "mtime", "gone")),
    )
    def vary(self, context: Context, number: int, change: str) -> Context:
        return varied(context, number, change)

    @rule(target=tars, context=tars, second=st.integers(3, 9))
    def copy(self, context: Context, second: int) -> Context:
        """The same, copied within a second."""
        copied = [entry._replace(mtime=second * SECOND) for entry in context.entries]
        return Context(copied, context.contents)

    @rule(target=running, function=st.sampled_from(("f", "g", None)), context=tars)
    def begin(self, function: str | None, context: Context) -> Build:
        return self._begin(function, context)

    @rule(held=running, hidden=PATHS, lost=st.booleans())
    def look(self, held: Build, hidden: set[str], *, lost: bool) -> None:
        """The build looks at a part of its context, which BuildKit may have of a session."""
        self._look(held, hidden, lost=lost)

    @rule(held=consumes(running), steps=st.integers(0, 12))
    def break_off(self, held: Build, steps: int, *, latest: bool = False) -> None:
        """The connection, or BuildKit, is lost in the middle of a transfer."""
        key, stats = held.lease.shared_key, self._stats(held, set())
        transfer = self.buildkit.begin(key, stats, latest=latest)
        for _ in zip(range(steps), transfer.steps(), strict=False):
            pass
        self.buildkit.keep(key, transfer)
        held.lease.release(intact=False)

    @rule(held=consumes(running))
    def end(self, held: Build) -> None:
        held.lease.release(intact=True)

    @rule(function=st.sampled_from(("f", "g")), context=tars)
    def build_after_build(self, function: str, context: Context) -> None:
        """With nothing in between, what BuildKit holds as it is announced is not asked for."""
        held = self._begin(function, context)
        said = told(held.lease, context)
        before = self.sent.get(said.key)
        requested = self._look(held, set(), latest=True)
        held.lease.release(intact=True)
        if before and self.buildkit.disk is exact:
            mtimes = told(before.lease, before.context).mtimes
            everything = {entry.path for entry in context.entries + before.context.entries}
            now, then = context.listing(everything), before.context.listing(everything)
            for path in set(requested) - said.resend:
                assert (now[path], said.mtimes[path]) != (then.get(path), mtimes.get(path))

    @rule(function=st.sampled_from(("f", "g")), context=tars, hidden=PATHS)
    def build_reproducibly(self, function: str, context: Context, hidden: set[str]) -> None:
        """Whatever BuildKit held, all that it looks at has the tar's times, directories too."""
        view = repr(sorted(hidden)).encode()
        held = self._begin(function, context, view)
        self._look(held, hidden)
        found = self.received[held.session, frozenset(hidden)].mtimes
        held.lease.release(intact=True)
        disk = self.buildkit.disk
        mtimes = {entry.path: disk(entry.mtime) for entry in context.entries}
        assert found == {path: mtimes[path] for path in found}

    @rule()
    def restart(self) -> None:
        """The builder is started again, and knows nothing."""
        self.records = self.records_type()
        self.last.clear()

    @rule()
    def prune(self) -> None:
        """BuildKit forgets what it received, not what it built."""
        self.buildkit.states.clear()
        self.sent.clear()

    def _begin(self, function: str | None, context: Context, view: bytes = b"") -> Build:
        session = next(self.sessions)
        lease = lease_in(self.records, context, session, function=function, view=view)
        held = Build(function, context, lease, lease.session or session)
        said = told(held.lease, context)
        self._check_times(held, said, view)
        self._check_marks(held, said)
        self.last[function] = held
        return held

    def _check_times(self, held: Build, said: Told, view: bytes) -> None:
        """Each time is the tar's; or it is that of the last build, and the tar is a fresh copy."""
        now = held.context.files
        given = {entry.path: entry.mtime for entry in held.context.entries}
        if said.mtimes == given:
            return
        last = self.last[held.function]
        assert held.function
        assert not view
        assert last.lease.shared_key == said.key
        then = last.context.files
        assert min(t for _, t in now.values()) > max(t for _, t in then.values())
        assert len({mtime for _, mtime in now.values()}) == 1
        before = told(last.lease, last.context).mtimes
        for path, mtime in said.mtimes.items():
            if mtime != given[path]:
                assert now[path][0] == then[path][0]
                assert mtime == before[path]

    def _check_marks(self, held: Build, said: Told) -> None:
        """All directories are resent, and files that a disk may hold with another content.

        If most would be such files, a build gets a new generation. One that names a session keeps
        its generation, and resends everything if BuildKit asks.
        """
        before = self.told.get(said.key, {})
        doubtful = set()
        for path, (content, _) in held.context.files.items():
            now = seconds(said.mtimes[path])
            for mtime, other in before.get(path, ()):
                if seconds(mtime) == now and other != content:
                    doubtful.add(path)
        sizes = {entry.path: entry.size for entry in held.context.entries}
        most = 2 * sum(sizes[path] for path in doubtful) > sum(sizes.values())
        groups = {entry.path: entry.link_group for entry in held.context.entries}
        linked = {groups[path] for path in doubtful} - {0}
        doubtful |= {path for path, group in groups.items() if group in linked}
        folders = {entry.path for entry in held.context.entries if S_ISDIR(entry.mode)}
        everything = groups.keys() if held.lease.session and most else set()
        assert said.resend == doubtful | folders | everything
        self.told[said.key] = {path: set(known) for path, known in before.items()}
        for path, (content, _) in held.context.files.items():
            self.told[said.key].setdefault(path, set()).add((said.mtimes[path], content))

    def _stats(self, held: Build, hidden: set[str]):
        mtimes, resend, _ = held.lease.announced
        return announced(
            [
                (entry, mtime, number in resend)
                for number, (entry, mtime) in enumerate(
                    zip(held.context.entries, mtimes, strict=True)
                )
                if not _in(entry.path, hidden)
            ],
            held.context.contents,
        )

    def _look(
        self, held: Build, hidden: set[str], *, latest: bool = False, lost: bool = False
    ) -> list[str]:
        """Look at a part of a build's context; returns what had to be transferred."""
        received = self.received.get((held.session, frozenset(hidden)))
        if received is None or lost:
            return self._transfer(held, hidden, latest=latest).requested
        paths = {entry.path for entry in held.context.entries if not _in(entry.path, hidden)}
        assert received.listing == held.context.listing(paths)
        return []

    def _transfer(self, held: Build, hidden: set[str], *, latest: bool = False) -> Transfer:
        key, stats = held.lease.shared_key, self._stats(held, hidden)
        transfer = self.buildkit.begin(key, stats, latest=latest)
        for _ in transfer.steps():
            pass
        self.buildkit.keep(key, transfer)
        self.sent.pop(key, None)
        if not hidden:
            self.sent[key] = held
        expected = held.context.listing({stat.path for stat in stats})
        assert transfer.state.listing() == expected
        key_of_it = held.session, frozenset(hidden)
        self.received[key_of_it] = Received(transfer.state.listing(), transfer.state.mtimes())
        assert _contents(self.buildkit.copy(transfer).listing()) == _contents(expected)
        return transfer


def _in(path: str, folders: Iterable[str]) -> bool:
    return any(f"{path}/".startswith(f"{folder}/") for folder in folders)


def _contents(listing: dict[str, tuple[int, bytes, frozenset[str]]]) -> object:
    """Modes and contents: BuildKit's checksums do not know which names share a file."""
    return {path: (mode, content) for path, (mode, content, _) in listing.items()}


TestBuilds = Builds.TestCase
TestBuilds.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


def test_most_files_may_be_doubtful_in_a_context_that_is_built_again():
    """The machine seldom finds this."""
    builds = Builds()
    builds.start(seed=0)
    for contents in (b"aaaa", b"abbb", b"abbb"):
        context = Context()
        for path, content in zip("abcd", contents, strict=True):
            context.file(path, bytes([content]))
        builds.build_after_build("f", context)
    assert builds.last["f"].lease.announced.resend == {0, 1, 2, 3}


# The model can fail: each part of the rule left out is found


class _NoMarks(ContentRecords):
    """mtimes as the tar has them, and nothing else: what the usual builders do."""

    def lease(self, *args, **kwargs):
        held = super().lease(*args, **kwargs)
        held.announced = Announced(held.announced.mtimes, set())
        return held


class _OneKey(ContentRecords):
    """A function keeps its key whatever happens."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str | None, str] = {None: "none"}

    def lease(self, cache_scope, *args, **kwargs):
        held = super().lease(cache_scope, *args, **kwargs)
        held.shared_key = self.keys.setdefault(cache_scope, held.shared_key)
        return held


class _AlwaysIntact(ContentRecords):
    """A generation is used on after a broken transfer."""

    def lease(self, *args, **kwargs):
        held = super().lease(*args, **kwargs)
        held.release(intact=True)
        return held


class _NoDirectories(ContentRecords):
    """Directory modes are not remembered."""

    def lease(self, cache_scope, *args, **kwargs):
        for generation in self._idle.get(cache_scope, ()):
            contents = Contents.unpack(generation.packed)
            contents.directory_modes.clear()
            generation.packed = contents.pack()
        return super().lease(cache_scope, *args, **kwargs)


class _NoGroups(ContentRecords):
    """Each name of a hard link is judged by its own record."""

    def lease(self, cache_scope, entries, *args, **kwargs):
        alone = [entry._replace(link_group=0) for entry in entries]
        return super().lease(cache_scope, alone, *args, **kwargs)


class _ForgetsThePast(ContentRecords):
    """Only what the last build announced is remembered."""

    def lease(self, *args, **kwargs):
        held = super().lease(*args, **kwargs)
        generation = held._generation
        assert generation is not None
        contents = Contents.unpack(generation.packed)
        contents.past.clear()
        generation.packed = contents.pack()
        return held


class _TellsNanosecondsApart(ContentRecords):
    """Only equal times count as one."""

    def lease(self, *args, **kwargs):
        with patch.object(contents_module, "_second", int):
            return super().lease(*args, **kwargs)


class _NoView(ContentRecords):
    """Reproducible builds are as any others."""

    def lease(self, *args, view=b"", **kwargs):
        return super().lease(*args, **kwargs)


class _NamesTheLastSession(ContentRecords):
    """A function's last session is named whatever has changed."""

    def lease(self, cache_scope, *args, **kwargs):
        idle = self._idle.get(cache_scope, ())
        sessions = [generation.sent.session for generation in idle]
        held = super().lease(cache_scope, *args, **kwargs)
        if sessions:
            held.session = sessions[-1]
        return held


def begun(builds: Builds, context: Context) -> Build:
    return Build("f", context, lease(builds.records, context))


def whole(builds: Builds, context: Context) -> str:
    """A build that goes on from all that BuildKit holds under the key, and ends well."""
    build = begun(builds, context)
    builds._transfer(build, set(), latest=True)
    build.lease.release(intact=True)
    return build.lease.shared_key


def other_bytes(builds: Builds) -> None:
    for content in (b"A", b"B", b"A"):
        whole(builds, Context().file("a", content, 5).file("b"))


def side_by_side(builds: Builds) -> None:
    both = [begun(builds, Context().file("a", content)) for content in (b"A", b"B")]
    for build in both:
        builds._transfer(build, set(), latest=True)


def died_before_the_checksums_were_stored(builds: Builds) -> None:
    whole(builds, Context().file("a", b"A"))
    changed = Context().file("a", b"B", SECOND)
    builds.break_off(begun(builds, changed), steps=2, latest=True)
    whole(builds, changed)


def a_directorys_mode(builds: Builds) -> None:
    for mode in (0o755, 0o700):
        whole(builds, Context().folder("d", mode).file("d/a", b"A"))


def a_group_has_one_doubtful_name(builds: Builds) -> None:
    for group, content in ((0, b"B"), (1, b"A"), (1, b"A")):
        context = Context().file("a", content, 5, group=group).file("b", b"A", 5, group=group)
        whole(builds, context.file("z", bytes(9)))


def back_from_an_older_state(builds: Builds) -> None:
    key = whole(builds, Context().file("a", b"A", 5).file("b", b"B", 5))
    for context in (Context(), Context().file("a", b"B", SECOND)):
        whole(builds, context.file("b", b"B", 5))
    del builds.buildkit.states[key][1:]
    whole(builds, Context().file("a", b"C", 5).file("b", b"B", 5))


def a_file_in_a_directory(builds: Builds) -> None:
    for content in (b"A", b"B"):
        context = Context().folder("d", mtime=5).file("d/a", content, 7)
        builds.build_reproducibly("f", context, set())


def rounded_to_one_time(builds: Builds) -> None:
    for content, mtime in ((b"A", SECOND + 5), (b"B", SECOND)):
        whole(builds, Context().file("a", content, mtime).file("b", b"B"))


def another_content(builds: Builds) -> None:
    for content in (b"A", b"B"):
        builds.build_after_build("f", Context().file("a", content, 5))


@pytest.mark.parametrize(
    ("lesser", "scenario", "disk"),
    [
        (_NoMarks, other_bytes, exact),
        (_OneKey, side_by_side, exact),
        (_AlwaysIntact, died_before_the_checksums_were_stored, exact),
        (_NoDirectories, a_directorys_mode, exact),
        (_NoGroups, a_group_has_one_doubtful_name, exact),
        (_ForgetsThePast, back_from_an_older_state, exact),
        (_TellsNanosecondsApart, rounded_to_one_time, seconds),
        (_NoView, a_file_in_a_directory, exact),
        (_NamesTheLastSession, another_content, exact),
    ],
)
def test_each_part_of_the_rule_is_needed(lesser, scenario, disk):
    builds = Builds()
    builds.start(seed=0, disk=disk)
    scenario(builds)
    builds.start(seed=0, disk=disk)
    builds.records = lesser()
    with pytest.raises(AssertionError):
        scenario(builds)


def test_the_machine_finds_a_lesser_rule_by_itself():
    # This seed finds it in 8 examples; another did not in 150.
    @seed(1)
    class Lesser(Builds):
        records_type = _ForgetsThePast

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Lesser,
            settings=settings(
                max_examples=1000, deadline=None, database=None, phases=(Phase.generate,)
            ),
        )


# The rule, case by case


@pytest.mark.parametrize("mtime", [0, 5, -(2**63), -1, 2**31 * SECOND, LATEST])
def test_each_time_is_the_tars(records, mtime: int):
    context = Context().file("a", b"1", mtime).symlink("b", "a", mtime).folder("d", mtime=mtime)
    assert build(records, context).mtimes == {"a": mtime, "b": mtime, "d": mtime}


def test_times_that_change_with_nothing_else_are_told(records):
    def tar(generated: int) -> Context:
        """One file is not touched, so it is no fresh copy."""
        return Context().file("a", b"1", 9).file("b", b"2", generated).file("c", b"3", 0)

    for mtime in (7, 20, 5, 20 * SECOND, 9):
        assert build(records, tar(mtime)).mtimes == {"a": 9, "b": mtime, "c": 0}


def test_content_that_changes_under_its_time_is_resent_and_its_time_stays(records):
    def tar(content: bytes, mtime: int = 5) -> Context:
        return Context().file("a", content, mtime).file("b", b"BB", 5)

    assert build(records, tar(b"1")).resend == set()
    assert build(records, tar(b"2")) == Told(ANY, {"a": 5, "b": 5}, {"a"})
    # BuildKit may still have either.
    assert build(records, tar(b"2")).resend == build(records, tar(b"1")).resend == {"a"}
    # As long as the disk may take one time for the other.
    assert build(records, tar(b"3", 5 + SECOND - 6)).resend == {"a"}
    assert build(records, tar(b"3", SECOND)).resend == set()
    assert build(records, tar(b"1", 2 * SECOND)).resend == set()
    assert build(records, tar(b"1", SECOND)).resend == {"a"}


@pytest.mark.parametrize("far", [2**31 * SECOND, -(2**31) * SECOND - 1])
def test_times_that_no_disk_need_tell_apart_are_one(records, far: int):
    near = 1 if far > 0 else -1
    build(records, Context().file("a", b"1", far).file("b", b"2"))
    other = Context().file("a", b"2", far + near * SECOND).file("b", b"2")
    assert build(records, other).resend == {"a"}


def test_a_path_that_vanished_is_remembered(records):
    def tar() -> Context:
        return Context().file("b", b"2", 5)

    build(records, tar().file("a", b"1", 5))
    build(records, tar())
    assert build(records, tar().file("a", b"2", 5)).resend == {"a"}
    build(records, tar().folder("a"))
    assert build(records, tar().file("a", b"3", 5)).resend == {"a"}


def test_a_symbolic_link_is_compared_by_its_target(records):
    build(records, Context().file("a", b"1", 5).symlink("b", "a", 5))
    assert build(records, Context().file("a", b"1", 5).symlink("b", "x", 5)).resend == set()


def test_all_names_of_a_file_are_resent_if_one_must_be(records):
    def linked(content: bytes, *names: str) -> Context:
        context = Context().file("z", bytes(9))
        for name in names:
            context.file(name, content, 5, group=1)
        return context

    build(records, Context().file("a", b"1", 5).file("b", b"2", 5).file("z", bytes(9)))
    assert build(records, linked(b"1", "a", "c")).resend == set()
    assert build(records, linked(b"1", "a", "b", "c")).resend == {"a", "b", "c"}
    assert build(records, linked(b"3", "c", "d")).resend == {"c", "d"}


def test_directories_are_always_resent(records):
    context = Context().folder("d").file("d/a", b"1", 5)
    assert build(records, context).resend == build(records, context).resend == {"d"}


def test_a_large_file_is_not_resent_for_ever(records):
    for content in (b"1", b"2"):
        first = build(records, Context().file("a", content * 9, 5).file("b", b"B", 5))
    second = build(records, Context().file("a", b"2" * 9, 5).file("b", b"B", 5))
    assert first.resend == {"a"}
    assert (second.key != first.key, second.resend) == (True, set())


def test_a_directorys_other_mode_takes_a_new_key_though_it_vanished_between(records):
    first = build(records, Context().folder("d").file("a", b"1", 5))
    assert build(records, Context().file("a", b"1", 5)).key == first.key
    second = build(records, Context().folder("d", 0o700).file("a", b"1", 5))
    assert second.key != first.key
    assert build(records, Context().folder("d", 0o700)).key == second.key


# Fresh copies: the only times that may be noise


def copied(second: int, **contents: bytes) -> Context:
    """Files, all written in one second."""
    context = Context()
    for name, content in contents.items():
        context.file(name.replace("_", "."), content, second * SECOND)
    return context


def test_an_unchanged_file_of_a_fresh_copy_keeps_its_time_and_a_changed_one_does_not(records):
    first = build(records, copied(5, a=b"1", b=b"2"))
    again = build(records, copied(7, a=b"1", b=b"2"))
    assert again == first
    changed = build(records, copied(9, a=b"1", b=b"3", c=b"4"))
    assert changed == Told(first.key, {"a": 5 * SECOND, "b": 9 * SECOND, "c": 9 * SECOND}, set())
    # Copied when the last one was, or before.
    for second in (9, 8):
        build(records, copied(9, a=b"1"))
        assert build(records, copied(second, a=b"1")).mtimes == {"a": second * SECOND}


@pytest.mark.parametrize(
    "times",
    [
        pytest.param((99, 900), id="one file was not touched"),
        pytest.param((900, 901), id="one was generated a second later"),
        pytest.param((900, 960), id="one was generated a minute later"),
        pytest.param((900, 900.5), id="the clock is finer than a copy"),
    ],
)
def test_what_may_mean_something_is_told(records, times: tuple[float, float]):
    def tar(source: bytes, *mtimes: float) -> Context:
        a, b = (int(mtime * SECOND) for mtime in mtimes)
        return Context().file("gen.c", b"code", b).file("gen.y", source, a).file("x", b"", a)

    build(records, tar(b"rule", 99, 100))
    a, b = (int(mtime * SECOND) for mtime in times)
    told = build(records, tar(b"other", *times))
    assert told.mtimes == {"gen.c": b, "gen.y": a, "x": a}


def many(*seconds: int, changed: int = -1) -> Context:
    """A file for each of these seconds, by name."""
    context = Context()
    for number, second in enumerate(seconds):
        content = b"changed" if number == changed else b"%d" % number
        context.file(f"{number:05}", content, second * SECOND)
    return context


STEADY = [*[0] * 20, *[1] * 800, *[2] * 20]


@pytest.mark.parametrize(
    ("seconds", "fresh"),
    [
        pytest.param(STEADY, True, id="as long as it takes to copy many"),
        pytest.param([*[0] * 100, *STEADY, *[0] * 9], True, id="a template first"),
        pytest.param([*STEADY[:-1]], False, id="few in the last second"),
        pytest.param([*[0] * 250, *[1] * 249], False, id="few files"),
        pytest.param([*[0] * 500, *[2] * 500], False, id="a pause"),
        pytest.param([0, 1] * 300, False, id="in another order than by name"),
    ],
)
def test_a_copy_may_take_seconds_if_it_is_steady(records, seconds, fresh: bool):
    build(records, many(*[0] * len(seconds)))
    told = build(records, many(*(900 + second for second in seconds), changed=3)).mtimes
    kept = {path for path, mtime in told.items() if mtime == 0}
    assert kept == (told.keys() - {"00003"} if fresh else set())


def test_a_pyc_that_was_compiled_anew_makes_times_mean_something(records):
    first = build(records, copied(5, a_py=b"1", a_pyc=b"of 5"))
    again = build(records, copied(7, a_py=b"1", a_pyc=b"of 5"))
    assert again == first
    compiled = build(records, copied(9, a_py=b"1", a_pyc=b"of 9"))
    assert set(compiled.mtimes.values()) == {9 * SECOND}


def test_a_copy_is_fresh_after_the_functions_last_build_only(records):
    """The other build may have left newer files in a cache mount, made of other content."""
    one, two = (lease(records, copied(5, a=b"1", b=content)) for content in (b"2", b"3"))
    two.release(intact=True)
    one.release(intact=True)
    # `one` began first, and is taken first.
    third = build(records, copied(7, a=b"1", b=b"2"))
    assert third == Told(one.shared_key, {"a": 7 * SECOND, "b": 7 * SECOND}, set())
    assert build(records, copied(9, a=b"1", b=b"2")).mtimes == third.mtimes


def test_a_file_that_was_away_has_the_tars_time(records):
    build(records, copied(5, a=b"1", b=b"2"))
    build(records, copied(7, a=b"1"))
    assert build(records, copied(9, a=b"1", b=b"2")).mtimes == {"a": 5 * SECOND, "b": 9 * SECOND}


def test_names_of_one_file_keep_one_time(records):
    def tar(second: int, group: int) -> Context:
        context = Context()
        for name in "ab":
            context.file(name, b"1", second * SECOND, group=group)
        return context

    build(records, tar(5, group=1))
    assert set(build(records, tar(7, group=1)).mtimes.values()) == {5 * SECOND}
    build(records, Context().file("a", b"1", 8 * SECOND).file("b", b"1", 9 * SECOND))
    assert set(build(records, tar(10, group=1)).mtimes.values()) == {10 * SECOND}


# Reproducible builds


def test_no_time_is_noise_where_the_image_must_be_reproducible(records):
    first = build(records, copied(5, a=b"1", b=b"2"), view=b"v")
    second = build(records, copied(7, a=b"1", b=b"3"), view=b"v")
    assert second == Told(first.key, {"a": 7 * SECOND, "b": 7 * SECOND}, set())


@pytest.mark.parametrize(
    "other",
    [
        Context().folder("d").file("d/a", b"2", 5).file("b", b"2", 5),
        Context().folder("d").file("d/a", b"1", 6).file("b", b"2", 5),
        Context().folder("d").file("b", b"2", 5),
        Context().folder("d").file("d/a", b"1", 5).symlink("d/b", "a").file("b", b"2", 5),
    ],
)
def test_nothing_moves_a_directorys_time_where_the_image_must_be_reproducible(records, other):
    def tar() -> Context:
        return Context().folder("d", mtime=9).file("d/a", b"1", 5)

    first = build(records, tar().file("b", b"2", 5), view=b"v").key
    assert build(records, tar().file("b", b"3", 6), view=b"v").key == first
    assert build(records, tar().file("b", b"3", 6), view=b"w").key != first
    first = build(records, tar(), view=b"w").key
    assert build(records, other, view=b"w").key != first
    # Nor what a build before has moved.
    first = build(records, other).key
    assert build(records, other).key == first
    assert build(records, other, view=b"w").key != first


# Keys


def test_builds_at_the_same_time_have_keys_of_their_own(records):
    context = Context().file("a", b"1", 5)
    one, two = lease(records, context), lease(records, context)
    assert one.shared_key != two.shared_key
    one.release(intact=True)
    two.release(intact=True)
    assert {lease(records, context).shared_key, lease(records, context).shared_key} == {
        one.shared_key,
        two.shared_key,
    }


def test_a_key_is_used_no_more_after_an_end_that_is_not_known_to_be_whole(records):
    held = lease(records, Context().file("a", b"1", 5))
    held.release(intact=False)
    held.release(intact=True)
    after = build(records, Context().file("a", b"2", 5))
    assert after.key != held.shared_key
    assert after.resend == set()


def test_after_forgetting_no_key_is_used_again(records):
    context = Context().file("a", b"1", 5)
    idle = build(records, context).key
    running = lease(records, context, "g")
    records.forget()
    assert records.paths == 0
    running.release(intact=True)
    assert {build(records, context, name).key for name in "fg"}.isdisjoint(
        {idle, running.shared_key}
    )


def test_a_build_without_an_image_shares_nothing(records):
    context = Context().file("a", b"1", 5)
    keys = {build(records, context, None).key for _ in range(3)}
    assert len(keys) == 3
    assert records.paths == 0


def test_functions_share_nothing(records):
    context = Context().file("a", b"1", 5)
    assert build(records, context, "f").key != build(records, context, "g").key


def test_what_was_built_longest_ago_is_forgotten_first():
    records = ContentRecords(max_paths=25)
    context = Context()
    for number in range(10):
        context.file(f"{number}", b"", 5)
    first, second = build(records, context, "f").key, build(records, context, "g").key
    assert build(records, context, "f").key == first
    third = build(records, context, "h").key
    assert records.paths == 20
    assert build(records, context, "f").key == first
    assert build(records, context, "h").key == third
    assert build(records, context, "g").key != second


def test_names_that_are_new_in_every_build_do_not_pile_up(records):
    keys = set()
    for number in range(100):
        context = Context()
        for name in range(100):
            context.file(f"{name}.{number}", b"", 5)
        keys.add(build(records, context).key)
        assert records.paths < 2000
    assert 1 < len(keys) < 10


def test_of_what_was_not_sent_buildkits_requests_are_missing_and_nothing_is_recorded():
    """Only unchanged files are held; a request that is answered so leaves the record as it was."""
    records = ContentRecords()
    entries = [ContextEntry(name, S_IFREG | 0o644, 3, SECOND, "", 0, 0) for name in "abc"]
    digests = [b"1", b"2", b"3"]
    every = range(3)

    def missing(scope: str, entries: list[ContextEntry], digests: list[bytes]) -> list[int]:
        asked = list(records.missing(scope, entries, digests, absent=every))
        try:
            lease = records.lease(scope, entries, digests, absent=every)
        except NotHeld as error:
            assert asked == list(error.numbers)
            return asked
        assert not asked
        lease.release(intact=True)
        return []

    assert missing("f", entries, digests) == [0, 1, 2]
    assert records.paths == 0
    first = records.lease("f", entries, digests)
    # One build at a time has them.
    assert missing("f", entries, digests) == [0, 1, 2]
    first.release(intact=True)
    assert missing("other", entries, digests) == [0, 1, 2]
    assert missing("f", entries, digests) == []
    assert missing("f", entries, [b"1", b"4", b"3"]) == [1]
    assert missing("f", entries, [b"1", b"4", b"3"]) == [1]
    assert missing("f", [entries[0]._replace(mode=S_IFREG | 0o755), *entries[1:]], digests) == [0]
    assert missing("f", entries, digests) == []
    assert records.lease("f", entries, digests).shared_key == first.shared_key


def test_a_key_is_kept_for_equal_contexts_that_share_other_objects():
    """A full request's names and digests are objects of their own; a manifest's are not."""
    records = ContentRecords()
    keys: set[str] = set()
    for digests in ([b"%d" % 11, b"%d" % 11], [b"11"] * 2):
        names = ["/".join("da"), "/".join("db")] if keys else ["d/a", "d/b"]
        entries = [ContextEntry(name, S_IFREG | 0o644, 2, SECOND, "", 0, 0) for name in names]
        lease = records.lease("f", entries, digests, view=b"epoch")
        keys.add(lease.shared_key)
        lease.release(intact=True)
    assert len(keys) == 1


# The session that sent a context


def test_an_unchanged_context_names_the_session_that_sent_it(records):
    context = Context().folder("d", mtime=7).file("d/a", b"A", 5).symlink("b", "d/a", 6)
    first = lease_in(records, context, "first")
    first.release(intact=True)
    for number in range(3):
        again = lease_in(records, context, f"again {number}")
        assert (again.session, again.shared_key) == ("first", first.shared_key)
        assert again.announced[:2] == first.announced[:2]
        again.release(intact=True)


@pytest.mark.parametrize("change", ["content", "mode", "mtime", "gone"])
@pytest.mark.parametrize("number", range(3))
def test_another_context_names_no_session(records, change: str, number: int):
    context = Context().folder("d", mtime=7).file("d/a", b"A", 5).file("e", b"E", 6)
    lease_in(records, context, "first").release(intact=True)
    other = lease_in(records, varied(context, number, change), "second")
    assert not other.session or varied(context, number, change) == context
    other.release(intact=True)
    # BuildKit has the files of the second session now.
    back = lease_in(records, context, "third")
    assert back.session == ("first" if other.session else "")


def test_a_fresh_copy_names_the_session_of_the_same_files(records):
    lease_in(records, Context().folder("d", mtime=1).file("d/a", b"A", SECOND), "first").release(
        intact=True
    )
    for number in (2, 3):
        copy = Context().folder("d", mtime=number).file("d/a", b"A", number * SECOND)
        held = lease_in(records, copy, "copy")
        assert held.session == "first"
        assert held.announced.mtimes == [number, SECOND]
        held.release(intact=True)
    other = lease_in(records, Context().folder("d").file("d/a", b"B", 4 * SECOND), "other")
    assert not other.session


@pytest.mark.parametrize("intact", [True, False])
def test_what_was_not_announced_in_full_or_not_stored_is_not_named(records, intact: bool):
    context = Context().file("a", b"A", 5)
    lease_in(records, context, "first").release(intact=intact)
    assert lease_in(records, context, "second").session == ("first" if intact else "")


def test_a_build_without_a_fingerprint_neither_names_a_session_nor_leaves_one(records):
    context = Context().file("a", b"A", 5)
    lease_in(records, context, "first").release(intact=True)
    plain = lease(records, context)
    plain.send_in("second")
    assert not plain.session
    plain.release(intact=True)
    assert not lease_in(records, context, "third").session


def test_nothing_is_missing_of_a_context_whose_session_is_named(records):
    context = Context().file("a", b"A", 5)
    entries, digests = context.entries, context.digests
    whole = fingerprint(entries, digests)

    def missing(whole: Fingerprint | None) -> list[int]:
        return list(records.missing("f", entries, digests, absent=[0], whole=whole))

    assert missing(whole) == [0]
    held = lease_in(records, context, "first")
    assert missing(whole) == [0]
    held.release(intact=True)
    assert missing(whole) == []
    assert lease_in(records, context, "second", absent=[0]).session == "first"
