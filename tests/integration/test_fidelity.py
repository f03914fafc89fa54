"""What an archive holds is what BuildKit gets: see `tests.adversarial.fidelity.oracle`."""

import stat
import tarfile
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

import pytest

import aiobuildkit.fsutil.filter
import function_builder.context.tree
from aiobuildkit import Entry, FileTree, LocalDirectory, file_mode
from aiobuildkit.fsutil.followlinks import Links
from aiobuildkit.fsutil.patternmatcher import PatternMatcher, Results
from function_builder.context.tree import BuildContext
from function_builder.contract.errors import Refusal
from tests.adversarial.fidelity import oracle, tars
from tests.adversarial.fidelity.cases import CASES, LINKED, LONG, OF_FILES, SHORT, WRITTEN, Case
from tests.adversarial.fidelity.trees import File, Link, Tree, lay_out

pytestmark = pytest.mark.integration


def lay_out_request(tree: Tree, instructions: Sequence[str], root: Path) -> None:
    """Write what a client archives, with a Dockerfile of its own."""
    dockerfile = oracle.dockerfile(instructions)
    if WRITTEN not in tree.values():
        tree = {**tree, "Dockerfile": WRITTEN}
    written = {path: dockerfile if node == WRITTEN else node for path, node in tree.items()}
    lay_out(written, root / tars.CONTEXT)
    (root / tars.CONFIG).write_text("{}")


def archive_of(case: Case, root: Path) -> Path:
    """The archive of a case's directory, which is `root`/request/context."""
    lay_out_request(case.tree, case.instructions, root / "request")
    tars.gnu("--format=gnu")(root / "request", root / "request.tar")
    return root / "request.tar"


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_an_archive_is_what_buildctl_makes_of_the_directory(
    case: Case, buildkitd: str, tmp_path: Path
):
    archive = archive_of(case, tmp_path)
    trees: list[FileTree] = []
    directory = tmp_path / "request" / tars.CONTEXT
    if case in OF_FILES:
        trees.append(LocalDirectory(directory))
    truth = await oracle.build_with_buildctl(buildkitd, directory)
    assert case.fails in truth.error
    assert bool(case.fails) is bool(truth.error), truth.error
    refused = ""
    try:
        trees.append(oracle.tree_of(archive))
    except Refusal as refusal:
        refused = refusal.reason
    # What BuildKit would refuse is refused before BuildKit is asked.
    assert not refused or not oracle.differences(truth, oracle.Outcome(error=refused))
    for tree in trees:
        assert not oracle.differences(truth, await oracle.build(buildkitd, tree))


ALL = ("COPY . {to}/", "COPY src a.txt {to}/", "COPY run {to}/", "COPY --parents **/x {to}/")

WRITERS = {
    "GNU tar, gnu": (tars.gnu("--format=gnu"), LONG),
    "GNU tar, oldgnu": (tars.gnu("--format=oldgnu"), LONG),
    "GNU tar, posix": (tars.gnu("--format=posix"), LONG),
    "GNU tar, ustar": (tars.gnu("--format=ustar"), LINKED),
    "GNU tar, v7": (tars.gnu("--format=v7"), LINKED),
    "GNU tar, of .": (tars.gnu_dot, LONG),
    "GNU tar, without directories": (tars.gnu_without_directories, SHORT),
    "GNU tar, hard links as files": (tars.gnu("--hard-dereference"), LONG),
    "GNU tar, sorted": (tars.gnu("--sort=name", "--owner=1000", "--mtime=@0"), LONG),
    "bsdtar, pax": (tars.bsd("pax"), LONG),
    "bsdtar, gnutar": (tars.bsd("gnutar"), LONG),
    "bsdtar, ustar": (tars.bsd("ustar"), LINKED),
    "bsdtar, v7": (tars.bsd("v7"), LINKED),
    "Python, ustar": (tars.python(tarfile.USTAR_FORMAT), LINKED),
    "Python, gnu": (tars.python(tarfile.GNU_FORMAT), LONG),
    "Python, pax": (tars.python(tarfile.PAX_FORMAT), LONG),
    "Python, children first": (tars.python(tarfile.PAX_FORMAT, backwards=True), LINKED),
    "Go, auto": (tars.go("auto"), LONG),
    "Go, pax": (tars.go("pax"), LONG),
    "Go, gnu": (tars.go("gnu"), LONG),
    "Node": (tars.node(), LONG),
    "Node, portable": (tars.node("portable"), LONG),
    "PHP": (tars.php, SHORT),
}


@pytest.mark.parametrize("writer", WRITERS)
async def test_an_archive_of_any_program_is_what_buildctl_makes_of_it_unpacked(
    writer: str, buildkitd: str, tmp_path: Path
):
    write, tree = WRITERS[writer]
    lay_out_request(tree, ALL, tmp_path / "request")
    write(tmp_path / "request", tmp_path / "request.tar")
    # Not every program keeps modes and links, so the archive is the truth, not the directory.
    tars.extract(tmp_path / "request.tar", tmp_path / "unpacked")
    truth = await oracle.build_with_buildctl(buildkitd, tmp_path / "unpacked" / tars.CONTEXT)
    assert not truth.error
    ours = await oracle.build(buildkitd, oracle.tree_of(tmp_path / "request.tar"))
    assert not oracle.differences(truth, ours)


class WithoutExceptions(PatternMatcher):
    def __init__(self, patterns: Iterable[str]) -> None:
        super().__init__(pattern for pattern in patterns if not pattern.startswith("!"))


class WithoutParents(PatternMatcher):
    def results(self, path: str, parent: Results) -> Results:
        return self.top


def follow_nothing(links: Links, paths: tuple[str, ...]) -> Generator[None, None, list[str]]:
    yield
    return list(paths)


class Altered(BuildContext):
    """A context of which one byte of every file is another."""

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        content = super().read(entry, offset, size)
        return content if entry.path == "Dockerfile" else content[:-1] + b"!"


def without_setuid(st_mode: int) -> int:
    return file_mode(st_mode & ~stat.S_ISUID)


FAULTS = {
    "exceptions ignored": (aiobuildkit.fsutil.filter, "PatternMatcher", WithoutExceptions),
    "parents ignored": (aiobuildkit.fsutil.filter, "PatternMatcher", WithoutParents),
    "links not followed": (Links, "follow", follow_nothing),
    "setuid lost": (function_builder.context.tree, "file_mode", without_setuid),
    "a byte altered": (oracle, "BuildContext", Altered),
}

FAULTY = Case(
    "what each fault shows in",
    {
        "docs/kept": "kept",
        "docs/ignored": "ignored",
        ".dockerignore": "docs\n!docs/kept\n",
        "real/file": "file",
        "l": Link("real"),
        "program": File("program", 0o4755),
    },
    ("COPY l/file {to}/", "COPY docs program {to}/"),
)


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_oracle_notices_a_fault(
    fault: str, buildkitd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = archive_of(FAULTY, tmp_path)
    truth = await oracle.build_with_buildctl(buildkitd, tmp_path / "request" / tars.CONTEXT)
    owner, name, wrong = FAULTS[fault]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, wrong)
        assert oracle.differences(truth, await oracle.build(buildkitd, oracle.tree_of(archive)))
    assert not oracle.differences(truth, await oracle.build(buildkitd, oracle.tree_of(archive)))


async def test_the_oracle_does_not_take_what_was_in_the_cache_before(
    buildkitd: str, tmp_path: Path
):
    archive = archive_of(FAULTY, tmp_path)
    await oracle.build(buildkitd, oracle.tree_of(archive))
    truth = await oracle.build_with_buildctl(buildkitd, tmp_path / "request" / tars.CONTEXT)
    ours = await oracle.build(buildkitd, oracle.tree_of(archive))
    assert all("in the cache before" in found for found in oracle.differences(truth, ours))
    assert len(oracle.differences(truth, ours)) == len(FAULTY.instructions)
