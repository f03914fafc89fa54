"""Never the wrong content, never the same content twice: with a real BuildKit, image by image.

Every build goes the product's own way from the tar on (index, digests, record, Builder); its image
is pulled from the registry and compared with the tar, file by file, strays included.
"""

import asyncio
import io
import os
import signal
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from aiobuildkit import BuildKitError, Client, Exporter, FileSync, FileTree, Transfer
from aiobuildkit.fsutil.sender import CHUNK
from function_builder.buildkits.addresses import Addresses
from function_builder.buildkits.pool import Pool
from function_builder.buildkits.pools import Pools
from function_builder.builds import directories, options
from function_builder.builds.build import Build, BuildRequest
from function_builder.builds.builder import Builder
from function_builder.builds.options import RegistryCache, exporters
from function_builder.context.contents import Announced, Contents
from function_builder.context.digests import content_digests
from function_builder.context.fingerprint import fingerprint
from function_builder.context.mtimes import ContentRecords
from function_builder.contract.archive import open_archive
from function_builder.contract.config import BuildConfig
from function_builder.contract.context import read_context
from function_builder.contract.log import LogPrefixes
from function_builder.contract.result import BuildStatus
from function_builder.engine import BuildKitDaemon
from function_builder.registries.credentials import RegistryCredentials
from tests.support.contexts import contexts_released
from tests.support.images import File, pull
from tests.support.proxies import Link, hand_on, unix_proxy

pytestmark = pytest.mark.integration

NOW = 1_700_000_000
COPY = "FROM scratch\nCOPY . /ctx\n"


class Spool:
    """A request's body; `watch` is called before every read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.watch: Callable[[], None] | None = None

    def read(self, offset: int, size: int) -> bytes:
        if self.watch:
            self.watch()
        return self.data[offset : offset + size]


@dataclass(frozen=True)
class Tree:
    """A build context, as it is written into a tar and as its image must be.

    `times` are of paths that have another than `mtime`.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    mtime: int = NOW
    times: Mapping[str, int] = field(default_factory=dict)
    directories: Mapping[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    dockerfile: str = COPY
    build_args: Mapping[str, str] = field(default_factory=dict)

    def tar(self) -> bytes:
        body = io.BytesIO()
        with tarfile.open(fileobj=body, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path, mode in self.directories.items():
                archive.addfile(self._info(path, tarfile.DIRTYPE, mode))
            for path, content in {"Dockerfile": self.dockerfile.encode(), **self.files}.items():
                info = self._info(path, tarfile.REGTYPE, 0o644)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            for path, target in self.links.items():
                info = self._info(path, tarfile.LNKTYPE, 0o644)
                info.linkname = f"context/{target}"
                archive.addfile(info)
            archive.addfile(tarfile.TarInfo("com.openfaas.docker.config"))
        return body.getvalue()

    def _info(self, path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
        info = tarfile.TarInfo(f"context/{path}")
        info.type, info.mode, info.mtime = kind, mode, self.times.get(path, self.mtime)
        return info

    def image(self) -> dict[str, object]:
        """What `COPY . /ctx` must leave: kinds, modes, contents, names that share a file."""
        files = {"Dockerfile": self.dockerfile.encode(), **self.files}
        parents = {path.rpartition("/")[0] for path in files} - {""}
        found: dict[str, object] = {
            path: ("dir", self.directories.get(path, 0o755), b"", "")
            for path in parents | set(self.directories)
        }
        for path, content in files.items():
            names = [path, *(name for name, target in self.links.items() if target == path)]
            for name in names:
                found[name] = ("file", 0o644, content, min(names))
        return found


@dataclass
class Outcome:
    """A build's end, and its incremental transfer of the context (None: there was none)."""

    status: BuildStatus
    tree: Tree
    files: dict[str, File]
    transfer: Transfer | None
    digest: str = ""
    layers: Sequence[str] = ()

    def check(self) -> None:
        """Compare the image with the tar."""
        assert self.status is BuildStatus.SUCCESS
        groups: dict[str, list[str]] = {}
        inside = {
            path.removeprefix("ctx/"): file
            for path, file in self.files.items()
            if path.startswith("ctx/")
        }
        for path, file in inside.items():
            groups.setdefault(file.same_as.removeprefix("ctx/") or path, []).append(path)
        found = {
            path: (
                file.kind,
                file.mode & 0o7777,
                file.content,
                "" if file.kind == "dir" else min(names),
            )
            for names in groups.values()
            for path, file in ((name, inside[name]) for name in names)
        }
        assert found == self.tree.image()


class Builds:
    """Builds on one BuildKit, with the records of one builder."""

    def __init__(self, address: str, registry: str, records: ContentRecords | None = None) -> None:
        self.registry = registry
        self.client = Client(address)
        self.name = uuid.uuid4().hex
        self.restart(records)

    def restart(self, records: ContentRecords | None = None) -> None:
        """A builder that knows nothing, or what it is given."""
        pool = Pool(Addresses.parse(self.client.address), lambda _: self.client)
        if records is not None:
            pool.daemons[self.client.address].records = records
        self._builder = Builder(
            Pools(pool),
            credentials=lambda _: RegistryCredentials(None),
            cache=RegistryCache("", insecure=True),
            insecure=True,
            confirm_pushes=True,
            log_prefixes=LogPrefixes.FULL,
        )

    async def run(
        self,
        tree: Tree,
        *,
        function: str = "f",
        watch: Callable[[], None] | None = None,
        pulled: bool = True,
    ) -> Outcome:
        """Build a tree.

        Args:
            tree: the context.
            function: whose it is.
            watch: called before each read that serves BuildKit.
            pulled: whether the image is read. Without, the outcome has its digest alone.
        """
        build, spool = self._build(tree, function)
        spool.watch = watch
        await self._builder.run(build)
        result = await build.end()
        transfers = [each for each in build.transfers if each.dir_name == "context"]
        # The first of two is for .dockerignore alone.
        outcome = Outcome(result.status, tree, {}, transfers[-1] if transfers else None)
        outcome.digest = result.digest
        if result.status is BuildStatus.SUCCESS and pulled:
            reference = build.request.config.image.removeprefix(f"{self.registry}/")
            image = await asyncio.to_thread(pull, self.registry, *reference.rsplit(":", 1))
            assert outcome.digest == image.digest
            outcome.files = image.files
            outcome.layers = image.config["rootfs"]["diff_ids"]
        return outcome

    async def cancel_at(self, tree: Tree, output: str) -> None:
        """Begin a build, and cancel it when one of its steps has said something."""
        build, _ = self._build(tree, "f")
        task = asyncio.create_task(self._builder.run(build))
        async for lines in build.log.follow(heartbeat=60):
            assert lines, "the step never said it"
            if any(line.endswith(output) for line in lines if line.startswith("l:")):
                break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def _build(self, tree: Tree, function: str) -> tuple[Build, Spool]:
        spool = Spool(tree.tar())
        context = read_context(open_archive(spool, max_entries=20_000)).entries
        image = f"{self.registry}/content/{self.name}/{function}:{uuid.uuid4().hex}"
        digests = content_digests(spool, context)
        request = BuildRequest(
            build_timeout=100,
            config=BuildConfig(image=image, build_args=tree.build_args),
            reader=spool,
            context=context,
            digests=digests,
            fingerprint=fingerprint(context, digests),
            frontend={},
            secrets={},
            trust_domain="test",
        )
        return Build(request), spool

    async def check(self, tree: Tree, *, function: str = "f") -> Outcome:
        """Build a tree and compare the image with it."""
        async with contexts_released(self.client):
            outcome = await self.run(tree, function=function)
        outcome.check()
        return outcome


@pytest.fixture
def builds(buildkitd: str, registry: str) -> Builds:
    return Builds(buildkitd, registry)


# One build after another


async def other_bytes_alone(builds: Builds, mtime: int = NOW) -> None:
    """Bytes change; names, sizes and mtimes do not."""
    for content in (b"A", b"B", b"A", b"B"):
        await builds.check(Tree({"a": content * 9, "d/b": content * 7, "same": b"S"}, mtime))


async def a_directorys_mode_alone(builds: Builds) -> None:
    for mode in (0o755, 0o700, 0o755, None, 0o711):
        directories = {} if mode is None else {"d": mode}
        await builds.check(Tree({"a": b"A"}, directories=directories))


async def a_file_vanishes_and_comes_back(builds: Builds) -> None:
    for files in ({"a": b"A", "b": b"1"}, {"b": b"1"}, {"a": b"B", "b": b"1"}, {"a": b"A"}):
        await builds.check(Tree(files, 0))


async def hard_links(builds: Builds) -> None:
    """Names share a file, part, share it with others; contents tell every build from the rest."""
    for files, links in (
        ({"a": b"A1"}, {"b": "a"}),
        ({"a": b"B1"}, {"b": "a"}),
        ({"a": b"C1", "b": b"C2"}, {}),
        ({"b": b"D1"}, {"a": "b", "c": "b"}),
        ({"c": b"E1", "a": b"E2"}, {"b": "c"}),
        ({"a": b"A1"}, {"b": "a"}),
        ({"b": b"F1"}, {"c": "b"}),
        ({"a": b"G1"}, {"b": "a", "c": "a"}),
        ({"a": b"H1"}, {"b": "a", "c": "a"}),
    ):
        await builds.check(Tree(files, NOW, links=links))


async def kinds_change(builds: Builds) -> None:
    """A name is a file, a directory, and a file again."""
    for tree in (
        Tree({"x": b"A"}),
        Tree({"x/y": b"A"}, directories={"x": 0o755}),
        Tree({"x": b"B"}),
        Tree({"x/y": b"B"}, directories={"x": 0o755}),
        Tree({"x": b"A"}),
    ):
        await builds.check(tree)


@pytest.mark.parametrize("mtime", [0, NOW, 2**33, -1])
async def test_other_bytes_alone_make_another_image(builds, mtime: int):
    await other_bytes_alone(builds, mtime)


@pytest.mark.parametrize(
    "scenario",
    [a_directorys_mode_alone, a_file_vanishes_and_comes_back, hard_links, kinds_change],
)
async def test_the_image_is_the_tar_after(builds, scenario):
    await scenario(builds)


async def test_two_functions_do_not_mix(builds):
    for _ in range(2):
        for function, content in (("f", b"A"), ("g", b"B")):
            await builds.check(Tree({"a": content}, 0), function=function)


async def test_a_builder_that_was_restarted_builds_what_it_is_sent(builds):
    for content in (b"A", b"B", b"A"):
        await builds.check(Tree({"a": content}, 0))
        builds.restart()


async def test_a_record_that_was_evicted_is_not_missed(builds):
    builds.restart(ContentRecords(max_paths=1))
    for content in (b"A", b"B", b"A"):
        await builds.check(Tree({"a": content}, 0))


# Side by side


async def test_builds_at_the_same_time_do_not_mix(builds):
    for _ in range(2):
        await asyncio.gather(
            *(
                builds.check(Tree({"a": b"%d" % number, "b": b"B"}, 0), function=function)
                for number in range(4)
                for function in ("f", "g")
            )
        )


# Broken transfers

SMALL = 100
BIG = 8 << 20


def long(letter: bytes) -> Tree:
    """Small files that have arrived when the last, a big one, has not; copied by a step alone.

    Their times are their content's own, so that none needs to be resent for its time.
    """
    files = {f"small/{number:03}": letter + b"%03d" % number for number in range(SMALL)}
    dockerfile = "FROM scratch\nCOPY Dockerfile /ctx/\nCOPY small /ctx/small\nCOPY zbig /ctx/\n"
    return Tree({**files, "zbig": letter * BIG}, NOW + letter[0], dockerfile=dockerfile)


def near_the_end(action: Callable[[], object]) -> Callable[[], None]:
    """Do something once, when most of `long` has been sent, but not all."""
    pieces = BIG // CHUNK
    reads = 0

    def watch() -> None:
        nonlocal reads
        reads += 1
        if reads == SMALL + pieces * 7 // 8:
            action()

    return watch


async def cancelled(builds: Builds, tree: Tree) -> None:
    """The request's client goes away, so that the build is cancelled."""

    def leave() -> None:
        task.cancel()

    task = asyncio.create_task(builds.run(tree, watch=near_the_end(leave)))
    with pytest.raises(asyncio.CancelledError):
        await task


async def spool_broken(builds: Builds, tree: Tree) -> None:
    """The archive cannot be read."""

    def fail() -> None:
        raise OSError(5, "Input/output error")

    outcome = await builds.run(tree, watch=near_the_end(fail))
    assert outcome.status is BuildStatus.FAILED


@pytest.mark.parametrize("broken", [cancelled, spool_broken])
async def test_a_transfer_that_broke_leaves_nothing_behind(builds, broken):
    for letter in (b"A", b"B", b"A"):
        await broken(builds, long(letter))
        await builds.check(long(letter))
    await builds.check(long(b"B"))


async def test_a_connection_that_was_cut_leaves_nothing_behind(buildkitd, registry, tmp_path):
    async with proxy(buildkitd, tmp_path / "proxy") as (address, cut):
        builds = Builds(address, registry)
        await builds.check(long(b"A"))
        outcome = await builds.run(long(b"B"), watch=near_the_end(cut))
        assert outcome.status is BuildStatus.FAILED
        await builds.check(long(b"B"))
        await builds.check(long(b"A"))


@asynccontextmanager
async def proxy(address: str, path: Path) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """Another address for a daemon, whose connections can be cut all at once."""
    writers: list[asyncio.StreamWriter] = []

    def pumps(link: Link) -> Iterable[Coroutine[None, None, None]]:
        writers.extend((link.writer, link.back))
        yield hand_on(link.reader, link.back)
        yield hand_on(link.there, link.writer)

    def cut() -> None:
        for writer in writers:
            writer.transport.abort()

    async with unix_proxy(address, path, pumps) as other:
        yield other, cut


async def killed(builds: Builds, daemon: BuildKitDaemon, times: int) -> None:
    """BuildKit dies in the middle of a transfer, and comes back on what it had."""
    await builds.check(long(b"A"))
    for letter in (bytes([ord("B") + number]) for number in range(times)):
        kill = partial(os.killpg, daemon.pid, signal.SIGKILL)
        outcome = await builds.run(long(letter), watch=near_the_end(kill))
        assert outcome.status is BuildStatus.FAILED
        await answers(builds.client)
        await builds.check(long(letter))
    await builds.check(long(b"A"))


async def test_a_buildkit_killed_in_mid_transfer_builds_right_afterwards(fresh_buildkitd, registry):
    daemon = await fresh_buildkitd()
    await killed(Builds(daemon.address, registry), daemon, times=2)


async def test_buildkit_killed_between_the_last_byte_and_the_checksums(
    fresh_buildkitd, registry, monkeypatch
):
    """The client goes away when all has been sent; BuildKit dies before it has stored all."""
    made: list[FileSync] = []

    def file_sync(trees: Mapping[str, FileTree]) -> FileSync:
        made.append(FileSync(trees))
        return made[-1]

    def sent() -> bool:
        transfers = [each for each in made[-1].transfers if each.dir_name == "context"]
        return len(transfers) == 1 and transfers[0].finished

    monkeypatch.setattr(directories, "FileSync", file_sync)
    daemon = await fresh_buildkitd()
    builds = Builds(daemon.address, registry)
    trees = [
        Tree({f"{number:03}": letter + b"%03d" % number for number in range(300)}, NOW + letter[0])
        for letter in (b"A", b"B", b"C", b"D")
    ]
    await builds.check(trees[0])
    for tree in trees[1:]:
        made.clear()
        task = asyncio.create_task(builds.run(tree))
        async with asyncio.timeout(60):
            # Nothing tells when FIN was exchanged.
            while not made or not sent():
                await asyncio.sleep(0)
        task.cancel()
        os.killpg(daemon.pid, signal.SIGKILL)
        with pytest.raises(asyncio.CancelledError):
            await task
        await answers(builds.client)
        await builds.check(tree)


async def answers(client: Client) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await client.info()
            except (BuildKitError, OSError):
                await asyncio.sleep(0.05)
            else:
                return


# Never the same content twice


async def test_of_ten_thousand_files_only_the_changed_one_travels_though_all_mtimes_are_new(builds):
    files = {f"{n // 100}/{n}": b"%d" % n for n in range(10_000)}
    async with contexts_released(builds.client):
        first = await builds.run(Tree(files, NOW), pulled=False)
    assert first.transfer.requested == len(files) + 1
    changed = files | {"7/777": b"778"}
    outcome = await builds.check(Tree(changed, NOW + 60))
    assert outcome.transfer.announced == len(files) + 1 + 100
    assert outcome.transfer.requested == 1
    unchanged = await builds.run(Tree(changed, NOW + 120), pulled=False)
    assert unchanged.transfer is None
    assert unchanged.digest == outcome.digest


async def test_builds_that_fail_or_are_cancelled_later_on_keep_what_they_sent(builds):
    unique = uuid.uuid4().hex
    files = {f"{number}": b"%d" % number for number in range(100)}
    dockerfile = f"FROM busybox\nCOPY . /ctx\nRUN echo {unique} && {{}}\n"
    async with contexts_released(builds.client):
        failed = await builds.run(Tree(files, NOW, dockerfile=dockerfile.format("false")))
    assert failed.status is BuildStatus.FAILED
    assert failed.transfer.requested == len(files) + 1
    sleeps = Tree(files, NOW + 60, dockerfile=dockerfile.format("echo asleep && sleep 60"))
    async with contexts_released(builds.client):
        await builds.cancel_at(sleeps, "asleep")
    outcome = await builds.run(Tree(files, NOW + 120, dockerfile=dockerfile.format("true")))
    assert outcome.status is BuildStatus.SUCCESS
    assert outcome.transfer.requested == 1


async def test_make_finds_nothing_to_do_on_a_first_build_and_changes_later(builds):
    checks = "test ! src -nt out && test ! out -nt src && test ! gen -nt src"
    dockerfile = "FROM busybox\nCOPY . /ctx\nRUN cd /ctx && {}\n"
    unique = uuid.uuid4().bytes
    files = {name: unique + name.encode() for name in ("src", "gen", "out")}
    first = await builds.run(Tree(files, NOW, dockerfile=dockerfile.format(checks)))
    assert first.status is BuildStatus.SUCCESS
    changed = files | {"src": unique + b"SRC"}
    checks = "test src -nt out && test ! gen -nt out && test ! out -nt gen"
    later = await builds.run(Tree(changed, NOW + 60, dockerfile=dockerfile.format(checks)))
    assert later.status is BuildStatus.SUCCESS


# The times are the tar's


def times(outcome: Outcome) -> dict[str, float]:
    """What the image has, directories aside."""
    return {
        path.removeprefix("ctx/"): file.mtime
        for path, file in outcome.files.items()
        if file.kind != "dir"
    }


async def test_files_have_the_times_of_the_tar_in_their_order(builds):
    """Sources and what was generated from them travel together, and make goes by times."""
    dockerfile = "FROM busybox\nCOPY . /ctx\nRUN cd /ctx && test gen.c -nt gen.y\n"
    for source, changed, generated in ((b"rule", 100, 200), (b"rule # why", 300, 400)):
        given = {"gen.y": NOW + changed, "gen.c": NOW + generated}
        tree = Tree({"gen.y": source, "gen.c": b"code"}, NOW, given, dockerfile=dockerfile)
        outcome = await builds.run(tree)
        assert outcome.status is BuildStatus.SUCCESS
        assert times(outcome).items() >= (given | {"Dockerfile": NOW}).items()


@pytest.mark.parametrize("mtime", [0, NOW])
async def test_files_of_one_time_stay_so_when_their_content_changes(builds, mtime: int):
    """Below a second too, which steps see and layers do not hold."""
    step = "cd /ctx && stat -c %y a gen d/b Dockerfile | sort -u >/seen"
    dockerfile = f"FROM busybox\nCOPY . /ctx\nRUN {step}\n"
    for content in (b"A", b"B", b"C", b"B"):
        files = {"a": content, "gen": b"same", "d/b": content * 3}
        outcome = await builds.run(Tree(files, mtime, dockerfile=dockerfile))
        assert len(outcome.files["seen"].content.splitlines()) == 1
        assert outcome.files["ctx/a"].content == content
        assert outcome.files["ctx/d/b"].content == content * 3


async def test_a_pyc_is_as_old_as_its_source(builds):
    """Python takes a .pyc whose header has its source's time and size (PEP 3147, PEP 552)."""
    for second in (NOW, NOW + 60, NOW + 120):
        pyc = (0xA7, 0, second, 6)
        header = b"".join(number.to_bytes(4, "little") for number in pyc)
        files = {"a.py": b"x = 1\n", "a.pyc": header + b"code", "b": b"%d" % second}
        found = (await builds.check(Tree(files, second))).files
        assert int.from_bytes(found["ctx/a.pyc"].content[8:12], "little") == second
        assert found["ctx/a.py"].mtime == second


EPOCH = {"SOURCE_DATE_EPOCH": str(NOW + 50)}
ROOT = "FROM scratch\nCOPY . /\n"


def history(unique: str) -> list[Tree]:
    """Requests one after the other: a file changes, in a directory, at the root; one goes."""
    old = {"a": b"A", "gen": b"G", "d/x": b"X", "d/y": b"Y", "d/e/z": b"Z", "id": unique.encode()}
    folders = {"d": 0o755, "d/e": 0o755}
    first = Tree(old, NOW, {"d": NOW + 1}, folders, dockerfile=ROOT, build_args=EPOCH)
    inside = replace(first, files=old | {"d/x": b"XX"}, times={"d/x": NOW + 60, "d": NOW + 60})
    less = {path: content for path, content in old.items() if path != "d/y"}
    gone = replace(first, files=less, times={"d/e": NOW + 2, "gen": NOW + 9})
    copied = replace(first, files=old | {"d/e/z": b"z"}, mtime=NOW + 100, times={})
    return [first, inside, gone, copied, replace(copied, files=copied.files | {"a": b"B"})]


@pytest.mark.parametrize("rewritten", [False, True])
async def test_a_builder_that_has_built_before_makes_the_image_of_one_that_has_not(
    buildkitd, registry, fresh_buildkitd, monkeypatch, rewritten: bool
):
    if rewritten:
        attrs = {"rewrite-timestamp": "true"}
        monkeypatch.setattr(options, "exporters", partial(_exporters_with, attrs))
    fresh = Builds((await fresh_buildkitd()).address, registry)
    used = Builds(buildkitd, registry)
    for number, tree in enumerate(history(used.name)):
        async with contexts_released(used.client):
            here, there = await used.run(tree), await fresh.run(tree, function=f"f{number}")
        assert here.digest == there.digest
        # At the root of the context it costs no more than it must.
        if number == 4:
            assert here.transfer
            assert here.transfer.requested == 1


def _exporters_with(more: Mapping[str, str], request: BuildRequest, *, insecure: bool):
    (image,) = exporters(request, insecure=insecure)
    return [Exporter(image.type, {**image.attrs, **more})]


async def test_a_directory_has_the_tars_time_where_nothing_in_it_was_replaced(builds):
    for content, second in ((b"A", NOW + 1), (b"B", NOW + 2), (b"C", NOW - 5)):
        tree = Tree({"a": content, "d/b": b"B"}, NOW, {"d": second}, {"d": 0o755})
        outcome = await builds.check(tree)
        assert outcome.files["ctx/d"].mtime == second
        assert outcome.transfer
        # On the first build, all: the Dockerfile too.
        assert outcome.transfer.requested == (3 if content == b"A" else 1)


# What BuildKit keeps


_COPIES_NOTHING = {
    "copy": "FROM busybox\nCOPY big /\nCOPY no /\n",
    # Two fail at the same time, and the answer has one of both errors.
    "two": """
        FROM busybox AS a
        COPY big no /
        FROM busybox AS b
        COPY big nothing /
        FROM busybox
        COPY --from=a / /a
        COPY --from=b / /b
        """,
    "stage": "FROM busybox AS a\nCOPY big /\nFROM busybox\nCOPY --from=a /no /\n",
    "mount": "FROM busybox\nCOPY big /\nRUN --mount=type=bind,source=no,target=/no true\n",
}


@pytest.mark.parametrize("dockerfile", _COPIES_NOTHING.values(), ids=_COPIES_NOTHING)
async def test_all_of_a_build_that_copies_what_is_not_there_can_be_pruned(
    fresh_buildkitd, registry, dockerfile
):
    """BuildKit before v0.34 keeps the context until it restarts."""
    builds = Builds((await fresh_buildkitd()).address, registry)
    tree = Tree({"big": bytes(1 << 20)}, NOW, dockerfile=dockerfile)
    outcome = await builds.run(tree)
    assert outcome.status is BuildStatus.FAILED
    assert outcome.transfer
    async with asyncio.timeout(60):
        # It is released a little after the answer.
        while await builds.client.disk_usage():
            await builds.client.prune(all=True)


# These tests can fail


class _NoMarks(ContentRecords):
    """mtimes as the tar has them and one key for a function: what the usual builders do."""

    def lease(self, cache_scope, *args, **kwargs):
        held = super().lease(None, *args, **kwargs)
        held.shared_key = cache_scope
        held.announced = Announced(held.announced.mtimes, set())
        return held


class _NoDirectories(ContentRecords):
    """Directory modes are not remembered."""

    def lease(self, cache_scope, *args, **kwargs):
        for generation in self._idle.get(cache_scope, ()):
            contents = Contents.unpack(generation.packed)
            contents.directory_modes.clear()
            generation.packed = contents.pack()
        return super().lease(cache_scope, *args, **kwargs)


class _AlwaysIntact(ContentRecords):
    """A key is used on after a transfer that broke, and after BuildKit was lost."""

    def forget(self):
        pass

    def lease(self, *args, **kwargs):
        held = super().lease(*args, **kwargs)
        held.release(intact=True)
        return held


@pytest.mark.parametrize(
    ("lesser", "scenario"),
    [
        (_NoMarks, other_bytes_alone),
        (_NoMarks, hard_links),
        (_NoMarks, a_file_vanishes_and_comes_back),
        (_NoDirectories, a_directorys_mode_alone),
    ],
)
async def test_a_lesser_rule_is_found_out(builds, lesser, scenario):
    builds.restart(lesser())
    with pytest.raises(AssertionError, match="assert"):
        await scenario(builds)


async def test_a_key_used_on_after_a_broken_transfer_is_found_out(fresh_buildkitd, registry):
    daemon = await fresh_buildkitd()
    with pytest.raises(AssertionError, match="assert"):
        # It may die before any of the content is on its disk.
        await killed(Builds(daemon.address, registry, _AlwaysIntact()), daemon, times=8)
