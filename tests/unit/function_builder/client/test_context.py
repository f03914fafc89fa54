import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit import LocalDirectory
from aiobuildkit.fsutil.filter import Wanted, select
from function_builder.client import ContextError
from function_builder.client.context import find_entries


def found(directory: Path) -> list[str]:
    return [entry.name for entry in find_entries(directory)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("src/a", "src/b.log", "node_modules/p/index.js", "keep.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def test_what_the_ignore_file_leaves_out_is_not_sent(tree: Path) -> None:
    (tree / ".dockerignore").write_text("node_modules\n**/*.log\n!keep.log\n")
    assert found(tree) == ["", ".dockerignore", "Dockerfile", "keep.log", "src", "src/a"]


@pytest.mark.parametrize(
    ("patterns", "counts"),
    [
        ("node_modules\n**/*.log\n!keep.log\n", [(1, 1)]),
        ("node_modules\n!node_modules/p/*.md\n", [(1, 0)]),
        ("absent\n", []),
    ],
)
def test_what_is_left_out_is_counted(tree: Path, patterns: str, counts: list[object]) -> None:
    (tree / ".dockerignore").write_text(patterns)
    counted: list[object] = []
    list(find_entries(tree, on_left_out=lambda *numbers: counted.append(numbers)))
    assert counted == counts


def test_the_dockerfile_and_its_ignore_file_are_always_sent(tree: Path) -> None:
    (tree / ".dockerignore").write_text("*\n")
    assert found(tree) == ["", ".dockerignore", "Dockerfile"]
    (tree / "Dockerfile").rename(tree / "dockerfile")
    (tree / "Dockerfile.dockerignore").write_text("*\n!src/a")
    assert found(tree) == ["", "Dockerfile.dockerignore", "dockerfile", "src", "src/a"]


def test_the_dockerfiles_own_ignore_file_counts_alone(tree: Path) -> None:
    (tree / ".dockerignore").write_text("src\n")
    (tree / "Dockerfile.dockerignore").write_text("node_modules\n")
    assert "src/a" in found(tree)
    assert "node_modules" not in found(tree)
    (tree / "Dockerfile.dockerignore").write_bytes(b"")
    assert "node_modules/p/index.js" in found(tree)


def test_what_a_dockerfile_that_is_a_link_leads_to_is_sent(tree: Path) -> None:
    (tree / "docker" / "real").mkdir(parents=True)
    (tree / "docker" / "real" / "prod").write_text("FROM scratch\n")
    (tree / "docker" / "current").symlink_to("real")
    (tree / "docker" / "other").touch()
    (tree / "Dockerfile").unlink()
    (tree / "Dockerfile").symlink_to("./docker/current/../real/prod")
    (tree / "ignored").write_text("docker\nsrc\nnode_modules\nignored\n")
    (tree / ".dockerignore").symlink_to("/ignored")
    assert found(tree) == [
        *("", ".dockerignore", "Dockerfile", "docker", "docker/current", "docker/real"),
        *("docker/real/prod", "ignored", "keep.log"),
    ]


def test_an_ignore_file_that_leads_nowhere_leaves_nothing_out(tree: Path) -> None:
    (tree / ".dockerignore").symlink_to("../outside")
    (tree.parent / "outside").write_text("*\n")
    assert "src/a" in found(tree)
    (tree / ".dockerignore").unlink()
    (tree / ".dockerignore").symlink_to(".dockerignore")
    assert "src/a" in found(tree)
    (tree / ".dockerignore").unlink()
    (tree / ".dockerignore").mkdir()
    assert "src/a" in found(tree)


def test_odd_entries_that_are_left_out_stop_nothing(tree: Path) -> None:
    odd = tree / "odd"
    odd.mkdir()
    os.mkfifo(odd / "fifo")
    (odd / os.fsdecode(b"caf\xe9")).touch()
    (odd / "loop").symlink_to("loop")
    (tree / ".dockerignore").write_text("odd/*\n")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(odd / "s"))
        assert "odd" in found(tree)
    assert not any(name.startswith("odd/") for name in found(tree))


def test_a_left_out_directory_is_not_looked_into(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / ".dockerignore").write_text("*\n!src/a\n")
    listed: list[str] = []
    open_it = os.open

    def watched(path: str, flags: int) -> int:
        listed.append(os.path.relpath(path, tree))
        return open_it(path, flags)

    monkeypatch.setattr("function_builder.client.context.os.open", watched)
    assert found(tree) == ["", ".dockerignore", "Dockerfile", "src", "src/a"]
    assert listed == [".", "src"]


def test_what_is_left_out_may_vanish(tree: Path) -> None:
    (tree / ".dockerignore").write_text("node_modules\nsrc/*.log\n")
    names = []
    for entry in find_entries(tree):
        names.append(entry.name)
        if entry.name == "src":
            (tree / "src" / "b.log").unlink()
            (tree / "src" / "b.log").mkdir()
    assert names[-2:] == ["src", "src/a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ok\n\n[b-a]\n", r"\.dockerignore: line 3: .*: \[b-a\]"),
        (b"!\n", r"\.dockerignore: line 1: illegal exclusion pattern"),
        (b"\n" + b"x" * 70_000, r"\.dockerignore: line 2 is longer than 65535 bytes"),
    ],
)
def test_a_wrong_pattern_is_named_with_its_line(tree: Path, content: bytes, words: str) -> None:
    (tree / ".dockerignore").write_bytes(content)
    with pytest.raises(ContextError, match=words):
        found(tree)


NAMES = st.sampled_from(["a", "b", "ab", "a.b"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PARTS = st.sampled_from(["a", "b", "ab", "a*", "*", "**", "?", "*.b", "[ab]", "{a}", "a|b"])
PATTERNS = st.builds(
    lambda sign, parts: sign + "/".join(parts),
    st.sampled_from(["", "", "!"]),
    st.lists(PARTS, min_size=1, max_size=4),
)


@given(st.lists(PATHS, max_size=12), st.lists(PATTERNS, min_size=1, max_size=5))
def test_what_is_sent_is_what_buildkit_would_take_of_the_whole(
    files: list[str], patterns: list[str]
) -> None:
    """The same as a transfer's selection, which is tested against BuildKit's own."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for file in files:
            path = directory / file
            if not any(one.is_file() for one in (path, *path.parents)) and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        (directory / "Dockerfile").touch()
        (directory / ".dockerignore").write_text("\n".join(patterns))
        everything = LocalDirectory(directory).entries()
        wanted = Wanted(exclude=tuple(patterns))
        taken = {entry.path for entry in select(everything, wanted) if entry is not None}
        sent = found(directory)
        assert len(sent) == len(set(sent))
        assert set(sent) == taken | {"", "Dockerfile", ".dockerignore"}
