"""The ignore file: which one counts, what is wrong with it, and what it makes harmless."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiobuildkit.fsutil.filter import Wanted, select
from aiobuildkit.fsutil.sender import DIRECTORY, Entry, order
from function_builder.contract.archive import open_archive
from function_builder.contract.context import check_spare_ignore_file, read_context
from function_builder.contract.dockerignore import IgnoreFile
from function_builder.contract.errors import Refusal
from tests.adversarial.hostile.cases import archive, file, folder, symlink
from tests.support.archives import Bytes

DEFAULT = "context/.dockerignore"
OWN = "context/Dockerfile.dockerignore"
LONG = "context/data/" + "n" * 300
BAD = b"a\tb\n[a-\n" + b"x" * 70_000 + b"\n" * 20_000


def paths(*entries: bytes, pinned: bool | None = None) -> list[str]:
    """The context's paths that BuildKit is offered."""
    body = Bytes(b"".join(archive(*entries)("r/i")))
    opened = open_archive(body, max_entries=1000)
    context = read_context(opened)
    if pinned is not None:
        check_spare_ignore_file(opened, context, pinned=pinned)
    return [entry.path for entry in context.entries]


def refused(*entries: bytes, pinned: bool | None = None) -> str:
    with pytest.raises(Refusal) as caught:
        paths(*entries, pinned=pinned)
    assert caught.value.status == 400
    return caught.value.reason


IGNORED = {
    "device": file("context/data/null", flag=b"3"),
    "fifo": file("context/data/pipe", flag=b"6"),
    "long name": file(LONG),
    "deep": file("context/data/" + "d/" * 300 + "f"),
    "not UTF-8": file(b"context/data/caf\xe9"),
    "long target": symlink("context/data/l", "t" * 5000),
    "backslashes": file("context/data/a\\b"),
}


@pytest.mark.parametrize("entry", IGNORED.values(), ids=IGNORED)
@pytest.mark.parametrize("pattern", [b"data", b"data/**", b"*\n!Dockerfile", b"**/da*"])
def test_what_is_ignored_may_be_anything(entry: bytes, pattern: bytes):
    assert "Dockerfile" in paths(entry, file(DEFAULT, pattern))


@pytest.mark.parametrize("kind", [kind for kind in IGNORED if kind != "backslashes"])
@pytest.mark.parametrize("pattern", [b"", b"# data", b"other", b"data\n!data", b"data\n!data/**"])
def test_what_is_not_ignored_is_refused(kind: str, pattern: bytes):
    assert "The entry" in refused(IGNORED[kind], file(DEFAULT, pattern))


@pytest.mark.parametrize("name", ["../x", "/x", "context/data/../x"])
def test_a_name_that_leaves_the_archive_is_refused_even_so(name: str):
    assert "could leave" in refused(file(name), file(DEFAULT, b"*"))


@pytest.mark.parametrize("own", [b"", b"junk\n"])
@pytest.mark.parametrize(
    "spare",
    [
        file(DEFAULT, BAD),
        folder(DEFAULT),
        symlink(DEFAULT, "/x"),
    ],
    ids=["bad", "folder", "link"],
)
def test_the_dockerfiles_own_ignore_file_is_the_only_one(own: bytes, spare: bytes):
    assert paths(file(OWN, own), spare)


def test_an_own_ignore_file_replaces_the_other_even_empty():
    both = file(OWN), file(DEFAULT, b"data")
    assert "fifo" in refused(*both, IGNORED["fifo"])


def test_no_ignore_file_belongs_to_the_other_dockerfile():
    assert paths(file("context/dockerfile.dockerignore", BAD))


@pytest.mark.parametrize(
    "own",
    [folder(OWN), symlink(OWN, "x")],
)
def test_what_is_no_file_replaces_nothing(own: bytes):
    assert "[a-" in refused(own, file(DEFAULT, b"[a-"))


def test_an_image_that_may_read_the_other_file_has_it_checked():
    spare = file(DEFAULT, BAD)
    own = file(OWN, b"junk")
    assert paths(own, spare, pinned=False)
    assert ".dockerignore" in refused(own, spare, pinned=True)
    assert ".dockerignore" in refused(file(OWN), spare, pinned=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"*.md\nbin\\\n", ["line 2", '"bin']),
        (b"\xef\xbb\xbf# x\n\n[a-\n", ["line 3", "[a-"]),
        (b"a\n!\n", ["line 2", "!"]),
        ("node_modules\r\n".encode("utf-16"), ["UTF-16"]),
        ("node_modules\n".encode("utf-16-le"), ["UTF-16"]),
        (b"a\nb\tc\n", ["line 2", "control character"]),
    ],
)
@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile.dockerignore"])
def test_what_is_wrong_is_named_with_file_and_line(name: str, content: bytes, words: list[str]):
    reason = refused(file(f"context/{name}", content))
    assert reason.isprintable()
    for word in [f"context/{name}", *words]:
        assert word in reason


FILES = ("a/a", "a/b/c", "b/a", "b/b/a", "c")
FOLDERS = ("a", "a/b", "b", "b/b")
LINES = st.sampled_from(
    ["a", "b", "*", "!a", "!b/b", "**/a", "a/**", "!a/b/c", "a/*", "?", "/b", "[ab]", "!**/a"]
)


@given(st.lists(LINES, max_size=5))
@settings(deadline=None)
def test_it_leaves_out_what_buildkit_is_not_sent(lines: list[str]):
    ignored = IgnoreFile("\n".join(lines).encode(), "context/.dockerignore")
    modes = dict.fromkeys(FILES, 0o644) | dict.fromkeys(FOLDERS, DIRECTORY | 0o755)
    entries = [Entry(path, modes[path]) for path in sorted(modes, key=order)]
    exclude = tuple(line.removeprefix("/") for line in lines)
    sent = {entry.path for entry in select(entries, Wanted(exclude=exclude)) if entry}
    assert {path for path in FILES if not ignored.leaves_out(path)} == sent & set(FILES)
