"""Which file BuildKit reads as the Dockerfile where links lead to it, compared with our answer."""

import asyncio
import re
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aiobuildkit import Client, Entry, FileSync, SolveError
from aiobuildkit.fsutil.rootpath import UnclearPath, file_read
from aiobuildkit.fsutil.sender import DIRECTORY, SYMLINK, order

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

FETCHED = ("Dockerfile", "Dockerfile.dockerignore", "dockerfile")
Tree = dict[str, str | None]
"""By path, a link's target; None for a file. Directories are made where something is in them."""

NAMES = st.sampled_from(("a", "b", "d"))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.builds(
    "{}{}{}".format,
    st.sampled_from(("", "", "", "/", "./")),
    st.lists(st.sampled_from(("a", "b", "d", "..", "nope", ".")), min_size=1, max_size=4).map(
        "/".join
    ),
    st.sampled_from(("", "", "", "/")),
)
TREES = st.builds(
    lambda places, dockerfile, lower: {**places, "Dockerfile": dockerfile, **lower},
    st.dictionaries(PATHS, st.none() | TARGETS, min_size=2, max_size=7),
    TARGETS,
    st.sampled_from(({}, {}, {"dockerfile": None}, {"dockerfile": "a"})),
)


def chain(length: int) -> Tree:
    """That many links, one to the next, and a file."""
    links = {f"l{number}": f"l{number + 1}" for number in range(1, length)}
    return {"Dockerfile": "l1", **links, f"l{length}": None, "dockerfile": None}


CHAINS = [chain(length) for length in (1, 41, 255, 256, 257)]
PLACES: list[Tree] = [
    {"Dockerfile": "nope/../a", "a": None},
    {"Dockerfile": "d/../a", "d": "b/d", "b/d/a": None, "b/a": None, "a": None},
    {"Dockerfile": "/d/a", "d": "/b", "b/a": "../a", "a": None},
    {"Dockerfile": "../../a/", "a": None},
    {
        "Dockerfile": "now/a/../a/D",
        "now": "v/1",
        "v/1/a": "/v/2",
        "v/2/D": None,
        "v/a/D": None,
        "v/1/D": None,
    },
    {"Dockerfile": "now/../D", "now": "v/1", "v/1/x": None, "v/D": None, "D": "v/1/x"},
    {"Dockerfile": "now/../D", "now": "v/1", "v/1/x": None, "v/D": None},
    {"Dockerfile": "[ab]", "a": None, "[ab]": None},
    {"Dockerfile": "a/b", "a": "b", "b": "d", "d/b": "../a", "d/a": None},
]


class Files:
    """A tree whose files tell their number as an instruction that there is not."""

    def __init__(self, tree: Tree) -> None:
        self.tree: Tree = {}
        for path, target in tree.items():
            # A path is left out where something else than a directory is on its way.
            above = {path[:end] for end in range(len(path)) if path[end] == "/"}
            if not above & self.tree.keys() and not any(
                other.startswith(f"{path}/") for other in self.tree
            ):
                self.tree[path] = target
        folders = {path[:end] for path in self.tree for end in range(len(path)) if path[end] == "/"}
        entries = [Entry(path, DIRECTORY | 0o755) for path in folders]
        entries += [
            Entry(path, 0o644, len(self.content(path)))
            if target is None
            else Entry(path, SYMLINK | 0o777, target=target)
            for path, target in self.tree.items()
        ]
        self._entries = sorted(entries, key=lambda entry: order(entry.path))

    def content(self, path: str) -> bytes:
        return f"NUMBER_{list(self.tree).index(path)}\n".encode()

    def entries(self) -> list[Entry]:
        return self._entries

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        return self.content(entry.path)[offset : offset + size]

    def expected(self) -> str | None:
        for name in (FETCHED[0], FETCHED[2]):
            if found := file_read(self._entries, FETCHED, name):
                return found.path
        return None


async def read_by_buildkit(address: str, files: Files) -> str | None:
    shared = FileSync({"dockerfile": files, "context": files})
    async with (
        Client(address) as client,
        client.solve(
            attachables=[shared], shared_key=uuid4().hex, frontend_attrs={"cmdline": ""}
        ) as solve,
    ):
        with pytest.raises(SolveError) as caught:
            await solve.result()
    number = re.search(r"unknown instruction: NUMBER_(\d+)", str(caught.value))
    if number is None:
        assert "failed to read dockerfile" in str(caught.value)
        return None
    return list(files.tree)[int(number[1])]


def check(address: str, trees: list[Tree]) -> None:
    """Compare the answers for some trees, whose solves run side by side."""
    expected = {}
    for tree in map(Files, trees):
        try:
            expected[tree] = tree.expected()
        except UnclearPath:
            continue

    async def ask() -> list[str | None]:
        return await asyncio.gather(*(read_by_buildkit(address, files) for files in expected))

    found = asyncio.run(ask())
    for files, path in zip(expected, found, strict=True):
        assert (files.tree, expected[files]) == (files.tree, path)


def test_as_many_links_are_followed_as_by_buildkit(buildkitd: str):
    check(buildkitd, [*CHAINS, *PLACES])


@settings(
    max_examples=2,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(TREES, min_size=20, max_size=20))
def test_any_links_lead_where_buildkit_reads(buildkitd: str, trees: list[Tree]):
    check(buildkitd, trees)


def test_what_depends_on_buildkits_machine_has_no_answer():
    for target in ("/etc", "../../../etc"):
        files = Files({"Dockerfile": "a/mtab", "a": "b", "b": target, "etc/mtab": None})
        with pytest.raises(UnclearPath):
            files.expected()
