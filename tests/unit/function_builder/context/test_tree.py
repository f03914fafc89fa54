import hashlib
import itertools
import random
from stat import S_IFDIR, S_IFLNK, S_IFREG

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit import Entry, FileTree
from aiobuildkit.fsutil.sender import DIRECTORY, SYMLINK, order
from function_builder.context.digests import content_digests
from function_builder.context.tree import (
    BuildContext,
    DockerfileTree,
    recorded_entries,
    trees,
)
from function_builder.contract.context import ContextEntry


class Spool:
    """A reader that remembers what it was asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, size: int) -> bytes:
        self.reads.append((offset, size))
        return self.data[offset : offset + size]


def file(path: str, offset: int, size: int, group: int = 0, mode: int = 0o644) -> ContextEntry:
    return ContextEntry(path, S_IFREG | mode, size, 1, "", group, offset)


def symlink(path: str, target: str) -> ContextEntry:
    return ContextEntry(path, S_IFLNK | 0o777, len(target), 1, target, 0, 0)


def folder(path: str) -> ContextEntry:
    return ContextEntry(path, S_IFDIR | 0o755, 0, 1, "", 0, 0)


def test_entries_are_announced_with_the_mtimes_that_were_decided():
    entries = [folder("d"), file("d/run", 0, 3, 1, 0o4755), symlink("l", "d/run")]
    context: FileTree = BuildContext(Spool(b"abc"), entries, [7, 8, 9])
    assert context.entries() == [
        Entry("d", DIRECTORY | 0o755, 0, 7),
        Entry("d/run", 1 << 23 | 0o755, 3, 8, "", 1),
        Entry("l", SYMLINK | 0o777, 5, 9, "d/run"),
    ]


def test_what_was_decided_to_be_resent_is():
    context = BuildContext(Spool(b"abc"), [folder("d"), file("d/run", 0, 3)], [7, 8], {1})
    assert [entry.resend for entry in context.entries()] == [False, True]


@given(st.integers(0, 12), st.integers(0, 12))
def test_nothing_but_the_files_own_bytes_can_be_read(offset: int, size: int):
    context = BuildContext(Spool(b"before|content|after"), [file("a", 7, 7)], [0])
    assert context.read(context.entries()[0], offset, size) == b"content"[offset : offset + size]


def test_an_archive_that_became_shorter_is_an_error_and_not_a_shorter_file():
    entries = [file("a", 0, 10)]
    context = BuildContext(Spool(b"short"), entries, [0])
    with pytest.raises(OSError, match="ends before"):
        context.read(context.entries()[0], 0, 10)
    with pytest.raises(OSError, match="ends before"):
        content_digests(Spool(b"short"), entries)


def test_digests_are_those_of_the_content_alone():
    entries = [file("a", 0, 1), file("b", 2, 1, mode=0o755), file("c", 4, 1), folder("d")]
    one, same, other, nothing = content_digests(Spool(b"x x y"), entries)
    assert one == same == hashlib.sha256(b"x").digest() != other
    assert nothing == b""


def test_a_symbolic_link_is_not_taken_for_a_file_that_holds_its_target():
    link, other, content = content_digests(
        Spool(b"x"), [symlink("a", "x"), symlink("b", "y"), file("c", 0, 1)]
    )
    assert len({link, other, content}) == 3


def test_digests_are_made_in_one_pass_of_bounded_pieces():
    size = 3 << 20
    spool = Spool(bytes(2 * size))
    # Names in another order than their data; one file with two names; one without data.
    entries = [
        file("a", size, size, 1),
        file("b", 0, size),
        file("c", size, size, 1),
        file("d", size, 0),
    ]
    digests = content_digests(spool, entries)
    assert digests[0] == digests[2]
    piece = 256 * 1024
    assert spool.reads == [(start, piece) for start in range(0, 2 * size, piece)]


def test_a_large_file_is_digested_in_parts_each_of_its_bytes_once():
    size = (9 << 20) + 1
    content = bytearray(random.Random(1).randbytes(size))
    spool = Spool(bytes(content) * 2)
    one, same = content_digests(spool, [file("a", 0, size), file("b", size, size)])
    assert one == same
    reads = sorted(spool.reads)
    assert [start for start, _ in reads] == [0, *itertools.accumulate(n for _, n in reads)][:-1]
    assert sum(length for _, length in reads) == 2 * size
    for place in (0, 5 << 20, size - 1):
        content[place] ^= 1
        (other,) = content_digests(Spool(bytes(content)), [file("a", 0, size)])
        assert other != one
        content[place] ^= 1


def test_a_small_file_that_holds_a_large_ones_digests_is_not_taken_for_it():
    part = 4 << 20
    large = bytes(2 * part)
    forged = hashlib.sha256(bytes(part)).digest() * 2
    (one,) = content_digests(Spool(large), [file("a", 0, len(large))])
    (other,) = content_digests(Spool(forged), [file("a", 0, len(forged))])
    assert one != other


def dockerfile_tree(data: bytes, *entries: ContextEntry) -> dict[str, bytes]:
    """What BuildKit would read beside the context's own entries: paths and their content."""
    context = BuildContext(Spool(data), entries, [0] * len(entries))
    tree: FileTree = DockerfileTree(context)
    paths = [entry.path for entry in tree.entries()]
    assert paths == sorted(paths, key=order)
    own = context.entries()
    assert [entry for entry in tree.entries() if entry in own] == own
    more = [entry for entry in tree.entries() if entry not in own]
    return {entry.path: tree.read(entry, 0, entry.size) for entry in more}


def test_the_ignore_file_is_beside_the_dockerfile_too():
    given = dockerfile_tree(b"*.log", file(".dockerignore", 0, 5), file("Dockerfile", 0, 1))
    assert given == {"Dockerfile.dockerignore": b"*.log"}


@pytest.mark.parametrize("entries", [[], [file(".dockerignore", 0, 0)]])
def test_without_an_ignore_file_there_is_one_that_ignores_nothing(entries):
    given = dockerfile_tree(b"abc", *entries, file("a", 0, 3), folder("z"))
    assert given == {"Dockerfile.dockerignore": b""}


@pytest.mark.parametrize(
    "entry",
    [
        file("Dockerfile.dockerignore", 0, 0),
        symlink("Dockerfile.dockerignore", "gone"),
        folder("Dockerfile.dockerignore"),
        symlink(".dockerignore", "other"),
        folder(".dockerignore"),
    ],
)
def test_what_buildkit_reads_otherwise_is_left_to_it(entry):
    assert dockerfile_tree(b"abc", entry) == {}


def test_the_ignore_file_can_be_read_in_pieces():
    context = BuildContext(Spool(b"*.log"), [file(".dockerignore", 0, 5)], [0])
    tree = DockerfileTree(context)
    alias = tree.entries()[-1]
    assert [tree.read(alias, offset, 2) for offset in (0, 2, 4, 5)] == [b"*.", b"lo", b"g", b""]


def test_a_frontend_that_goes_by_time_stamps_is_given_nothing_without_one():
    context = BuildContext(Spool(b"*.log"), [file(".dockerignore", 0, 5)], [7])
    assert trees(context, built_in=False) == {"dockerfile": context, "context": context}
    own = trees(context, built_in=True)
    assert [entry.mtime for entry in own["dockerfile"].entries()] == [7, 0]
    assert own["context"] is context


def test_the_ignore_file_stands_beside_a_dockerfile_of_another_name():
    entries = [file(".dockerignore", 0, 5), folder("a"), file("a/Build", 0, 0), folder("b")]
    context = BuildContext(Spool(b"*.log"), entries, [7] * len(entries))
    own = trees(context, built_in=True, dockerfile="a/Build")["dockerfile"].entries()
    assert [entry.path for entry in own] == [
        ".dockerignore",
        "a",
        "a/Build",
        "a/Build.dockerignore",
        "b",
    ]
    # A link is followed by BuildKit, and what lies behind it is BuildKit's to find.
    linked = [file(".dockerignore", 0, 5), symlink("a", "b"), folder("b"), file("b/Build", 0, 0)]
    context = BuildContext(Spool(b"*.log"), linked, [7] * len(linked))
    own = trees(context, built_in=True, dockerfile="a/Build")["dockerfile"].entries()
    assert [entry.path for entry in own] == [".dockerignore", "a", "b", "b/Build"]


def test_the_entries_of_all_contexts_are_apart_in_the_record():
    def linked(path: str, group: int) -> ContextEntry:
        return file(path, 0, 1)._replace(link_group=group)

    context = [linked("a", 1), linked("b", 1), linked("c", 2)]
    folders = {"one": [linked("a", 1), linked("b", 1)], "two": [linked("a", 1), file("b", 0, 1)]}
    recorded = recorded_entries(context, folders)
    assert [(entry.path, entry.link_group) for entry in recorded] == [
        ("a", 1),
        ("b", 1),
        ("c", 2),
        ("one\0a", 3),
        ("one\0b", 3),
        ("two\0a", 4),
        ("two\0b", 0),
    ]
    assert recorded_entries(context, {}) is context
