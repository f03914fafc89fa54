import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from stat import S_IFDIR, S_IFLNK, S_IFREG, S_ISDIR

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
    run_state_machine_as_test,
)

from function_builder.builds.record import ContentRecords, Lease, _Contents
from function_builder.contract.context import ContextEntry
from tests.unit.function_builder.builds.receiver import BuildKit, announced

EARLIEST = -(2**31) * 10**9
LATEST = 2**63 - 1


@dataclass
class Context:
    """A build context as a tar has it, with what is in its files."""

    entries: list[ContextEntry] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)

    def folder(self, path: str, mode: int = 0o755) -> "Context":
        self.entries.append(ContextEntry(path, S_IFDIR | mode, 0, 0, "", 0, 0))
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


def mtimes(lease: Lease, context: Context) -> dict[str, int]:
    return {entry.path: mtime for entry, mtime in zip(context.entries, lease.mtimes, strict=True)}


def lease(records: ContentRecords, context: Context, function: str | None = "f") -> Lease:
    return records.lease(function, context.entries, context.digests)


def build(
    records: ContentRecords, context: Context, function: str | None = "f"
) -> tuple[str, dict[str, int]]:
    """A whole build that ends well: its shared key and what was announced."""
    held = lease(records, context, function)
    held.release(intact=True)
    return held.shared_key, mtimes(held, context)


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
    times = st.sampled_from((0, 0, 0, 1, EARLIEST - 1, EARLIEST, LATEST))
    contents = st.sampled_from((b"a", b"b", b""))
    file = ("file", "file", "link", "symlink", "none")
    kinds = {"a": file, "b": file, "d": ("folder", "none"), "d/x": file, "e": (*file, "folder")}
    for path, choices in kinds.items():
        if path == "d/x" and not any(entry.path == "d" for entry in context.entries):
            continue
        kind = draw(st.sampled_from(choices))
        if kind == "folder":
            context.folder(path, draw(st.sampled_from((0o755, 0o755, 0o700))))
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
            entries.append(entry._replace(mtime=entry.mtime + 1))
        elif change != "gone" or not f"{entry.path}/".startswith(f"{chosen.path}/"):
            entries.append(entry)
    paths = {entry.path for entry in entries}
    return Context(entries, {path: content for path, content in contents.items() if path in paths})


@dataclass
class Build:
    function: str | None
    context: Context
    lease: Lease
    whole: bool = True


class Builds(RuleBasedStateMachine):
    """Builds of three functions, side by side, with a BuildKit that has every freedom."""

    records_type: type[ContentRecords] = ContentRecords
    tars = Bundle("tars")
    running = Bundle("running")

    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        self.records = self.records_type()
        self.buildkit = BuildKit(random.Random(seed))
        # The context of which the key's latest state is a whole copy.
        self.sent: dict[str, Context] = {}

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

    @rule(target=running, function=st.sampled_from(("f", "g", None)), context=tars)
    def begin(self, function: str | None, context: Context) -> Build:
        return Build(function, context, lease(self.records, context, function))

    @rule(held=running, hidden=st.sets(st.sampled_from(("a", "b", "d/x", "e"))))
    def transfer(self, held: Build, hidden: set[str]) -> None:
        """A transfer of all that the build looks at."""
        self._transfer(held, hidden)

    @rule(held=consumes(running), steps=st.integers(0, 12))
    def break_off(self, held: Build, steps: int) -> None:
        """The connection, or BuildKit, is lost in the middle of a transfer."""
        key, stats = held.lease.shared_key, self._stats(held, set())
        transfer = self.buildkit.begin(key, stats)
        for _ in zip(range(steps), transfer.steps(), strict=False):
            pass
        self.buildkit.keep(key, transfer)
        held.lease.release(intact=False)

    @rule(held=consumes(running))
    def end(self, held: Build) -> None:
        held.lease.release(intact=True)

    @rule(function=st.sampled_from(("f", "g")), context=tars)
    def build_after_build(self, function: str, context: Context) -> None:
        """With nothing in between, unchanged files are not asked for."""
        held = Build(function, context, lease(self.records, context, function))
        before = self.sent.get(held.lease.shared_key, Context())
        requested = self._transfer(held, set(), latest=True)
        held.lease.release(intact=True)
        everything = {entry.path for entry in context.entries + before.entries}
        now, then = context.listing(everything), before.listing(everything)
        assert not [path for path in requested if now[path] == then.get(path)]

    @rule()
    def restart(self) -> None:
        """The builder is started again, and knows nothing."""
        self.records = self.records_type()

    @rule()
    def prune(self) -> None:
        """BuildKit forgets what it received, not what it built."""
        self.buildkit.states.clear()
        self.sent.clear()

    def _stats(self, held: Build, hidden: set[str]):
        view = [
            (entry, mtime)
            for entry, mtime in zip(held.context.entries, held.lease.mtimes, strict=True)
            if not any(f"{entry.path}/".startswith(f"{path}/") for path in hidden)
        ]
        return announced([e for e, _ in view], [m for _, m in view], held.context.contents)

    def _transfer(self, held: Build, hidden: set[str], *, latest: bool = False) -> Sequence[str]:
        key, stats = held.lease.shared_key, self._stats(held, hidden)
        transfer = self.buildkit.begin(key, stats, latest=latest)
        for _ in transfer.steps():
            pass
        self.buildkit.keep(key, transfer)
        self.sent.pop(key, None)
        if not hidden:
            self.sent[key] = held.context
        expected = held.context.listing({stat.path for stat in stats})
        assert transfer.state.listing() == expected
        assert _contents(self.buildkit.copy(transfer).listing()) == _contents(expected)
        return transfer.requested


def _contents(listing: dict[str, tuple[int, bytes, frozenset[str]]]) -> object:
    """Modes and contents: BuildKit's checksums do not know which names share a file."""
    return {path: (mode, content) for path, (mode, content, _) in listing.items()}


TestBuilds = Builds.TestCase
TestBuilds.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


# The model can fail: each part of the rule left out is found


class _TarsMtimes(ContentRecords):
    """mtimes as the tar has them, one key per function: what the usual builders do."""

    def lease(self, function, entries, digests):
        held = super().lease(None, entries, digests)
        held.shared_key = function or held.shared_key
        held.mtimes = [entry.mtime for entry in entries]
        return held


class _OneKey(ContentRecords):
    """A function keeps its key whatever happens."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str | None, str] = {None: "none"}

    def lease(self, function, entries, digests):
        held = super().lease(function, entries, digests)
        held.shared_key = self.keys.setdefault(function, held.shared_key)
        return held


class _AlwaysIntact(ContentRecords):
    """A generation is used on after a broken transfer."""

    def lease(self, function, entries, digests):
        held = super().lease(function, entries, digests)
        held.release(intact=True)
        return held


class _NoDirectories(ContentRecords):
    """Directory modes are not remembered."""

    def lease(self, function, entries, digests):
        for generation in self._idle.get(function, ()):
            contents = _Contents.unpack(generation.packed)
            contents.directory_modes.clear()
            generation.packed = contents.pack()
        return super().lease(function, entries, digests)


class _NoGroups(ContentRecords):
    """Each name of a hard link gets the mtime of its own record."""

    def lease(self, function, entries, digests):
        alone = [entry._replace(link_group=0) for entry in entries]
        return super().lease(function, alone, digests)


class _ForgetsVanished(ContentRecords):
    """Only the paths of the last build are remembered."""

    def lease(self, function, entries, digests):
        held = super().lease(function, entries, digests)
        generation = held._generation
        assert generation is not None
        contents = _Contents.unpack(generation.packed)
        for path in contents.contents.keys() - {entry.path for entry in entries}:
            del contents.contents[path]
        generation.packed = contents.pack()
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
        whole(builds, Context().file("a", content, 5))


def side_by_side(builds: Builds) -> None:
    both = [begun(builds, Context().file("a", content)) for content in (b"A", b"B")]
    for build in both:
        builds._transfer(build, set(), latest=True)


def died_before_the_checksums_were_stored(builds: Builds) -> None:
    whole(builds, Context().file("a", b"A"))
    changed = Context().file("a", b"B")
    builds.break_off(begun(builds, changed), steps=2)
    whole(builds, changed)


def a_directorys_mode(builds: Builds) -> None:
    for mode in (0o755, 0o700):
        whole(builds, Context().folder("d", mode).file("d/a", b"A"))


def a_group_parts(builds: Builds) -> None:
    whole(builds, Context().file("a", b"A", 5).file("b", b"A", 8))
    whole(builds, Context().file("a", b"A", 5, group=1).file("b", b"A", 5, group=1))
    whole(builds, Context().file("a", b"B", 8).file("b", b"A", 8))


def back_from_an_older_state(builds: Builds) -> None:
    key = whole(builds, Context().file("a", b"A", 5))
    whole(builds, Context())
    del builds.buildkit.states[key][1:]
    whole(builds, Context().file("a", b"B", 5))


@pytest.mark.parametrize(
    ("lesser", "scenario"),
    [
        (_TarsMtimes, other_bytes),
        (_OneKey, side_by_side),
        (_AlwaysIntact, died_before_the_checksums_were_stored),
        (_NoDirectories, a_directorys_mode),
        (_NoGroups, a_group_parts),
        (_ForgetsVanished, back_from_an_older_state),
    ],
)
def test_each_part_of_the_rule_is_needed(lesser, scenario):
    builds = Builds()
    builds.start(seed=0)
    scenario(builds)
    builds.start(seed=0)
    builds.records = lesser()
    with pytest.raises(AssertionError):
        scenario(builds)


def test_the_machine_finds_a_lesser_rule_by_itself():
    class Lesser(Builds):
        records_type = _TarsMtimes

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Lesser,
            settings=settings(
                max_examples=1000, deadline=None, database=None, phases=(Phase.generate,)
            ),
        )


# The rule, case by case


def test_unchanged_content_keeps_its_first_mtime_and_the_key(records):
    first = build(records, Context().file("a", b"1", 5))
    assert (
        build(records, Context().file("a", b"1", 99))
        == first
        == build(records, Context().file("a", b"1", 1))
    )


def test_equal_mtimes_stay_equal_on_a_first_build(records):
    _, found = build(records, Context().file("a", b"1", 7).file("b", b"2", 7).symlink("c", "a", 7))
    assert set(found.values()) == {7}


def test_changed_content_gets_the_tars_mtime_if_that_is_later_than_all_before(records):
    build(records, Context().file("a", b"1", 5))
    assert build(records, Context().file("a", b"2", 9))[1] == {"a": 9}
    assert build(records, Context().file("a", b"3", 9))[1] == {"a": 10}
    assert build(records, Context().file("a", b"1", 5))[1] == {"a": 11}
    assert build(records, Context().file("a", b"1", 5))[1] == {"a": 11}


def test_a_path_that_vanished_is_remembered(records):
    build(records, Context().file("a", b"1", 5))
    build(records, Context())
    assert build(records, Context().file("a", b"2", 5))[1] == {"a": 6}
    build(records, Context().folder("a"))
    assert build(records, Context().symlink("a", "x", 5))[1] == {"a": 7}


def test_names_of_one_file_get_one_mtime(records):
    def linked(content: bytes, *names: str) -> Context:
        context = Context()
        for name in names:
            context.file(name, content, 5, group=1)
        return context

    build(records, Context().file("a", b"1", 5).file("b", b"1", 8))
    assert build(records, linked(b"1", "a", "b"))[1] == {"a": 9, "b": 9}
    assert build(records, linked(b"1", "a", "b"))[1] == {"a": 9, "b": 9}
    assert build(records, linked(b"1", "a", "b", "c"))[1] == {"a": 10, "b": 10, "c": 10}
    assert build(records, linked(b"1", "a", "c"))[1] == {"a": 10, "c": 10}


def test_a_directorys_other_mode_takes_a_new_key_though_it_vanished_between(records):
    first, _ = build(records, Context().folder("d").file("a", b"1", 5))
    assert build(records, Context().file("a", b"1", 6))[0] == first
    second, found = build(records, Context().folder("d", 0o700).file("a", b"1", 6))
    assert second != first
    assert found["a"] == 6
    assert build(records, Context().folder("d", 0o700))[0] == second


@pytest.mark.parametrize("mtime", [LATEST, LATEST + 1])
def test_where_no_later_mtime_is_left_a_new_key_is_taken(records, mtime: int):
    first, found = build(records, Context().file("a", b"1", mtime))
    assert found == {"a": LATEST}
    second, found = build(records, Context().file("a", b"2", mtime))
    assert second != first
    assert found == {"a": LATEST}


def test_no_mtime_is_below_what_every_file_system_can_store(records):
    assert build(records, Context().file("a", b"1", -(2**63)))[1] == {"a": EARLIEST}
    assert build(records, Context().file("a", b"2", EARLIEST))[1] == {"a": EARLIEST + 1}


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
    key, found = build(records, Context().file("a", b"2", 5))
    assert key != held.shared_key
    assert found == {"a": 5}


def test_after_forgetting_no_key_is_used_again(records):
    context = Context().file("a", b"1", 5)
    idle, _ = build(records, context)
    running = lease(records, context, "g")
    records.forget()
    assert records.paths == 0
    running.release(intact=True)
    assert {build(records, context, name)[0] for name in "fg"}.isdisjoint(
        {idle, running.shared_key}
    )


def test_a_build_without_an_image_shares_nothing(records):
    context = Context().file("a", b"1", 5)
    keys = {build(records, context, None)[0] for _ in range(3)}
    assert len(keys) == 3
    assert records.paths == 0


def test_functions_share_nothing(records):
    context = Context().file("a", b"1", 5)
    assert build(records, context, "f")[0] != build(records, context, "g")[0]


def test_what_was_built_longest_ago_is_forgotten_first():
    records = ContentRecords(max_paths=25)
    context = Context()
    for number in range(10):
        context.file(f"{number}", b"", 5)
    first, second = build(records, context, "f")[0], build(records, context, "g")[0]
    assert build(records, context, "f")[0] == first
    third, _ = build(records, context, "h")
    assert records.paths == 20
    assert build(records, context, "f")[0] == first
    assert build(records, context, "h")[0] == third
    assert build(records, context, "g")[0] != second


def test_names_that_are_new_in_every_build_do_not_pile_up(records):
    keys = set()
    for number in range(100):
        context = Context()
        for name in range(100):
            context.file(f"{name}.{number}", b"", 5)
        keys.add(build(records, context)[0])
        assert records.paths < 2000
    assert 1 < len(keys) < 10
