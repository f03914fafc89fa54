import pytest

from aiobuildkit.fsutil import filter as selection
from aiobuildkit.fsutil.filepath import BadPattern
from aiobuildkit.fsutil.filter import Wanted, pieces, select
from aiobuildkit.fsutil.sender import DIRECTORY, SYMLINK, Entry, order


def tree(*paths: str) -> list[Entry]:
    """A tree of these paths; those that end with a slash are directories."""
    entries = [
        Entry(path.rstrip("/"), DIRECTORY | 0o755 if path.endswith("/") else 0o644)
        for path in paths
    ]
    return sorted(entries, key=lambda entry: order(entry.path))


def chosen(entries: list[Entry], **wanted) -> list[str]:
    return [entry.path for entry in select(entries, Wanted(**wanted)) if entry is not None]


PROJECT = tree("a/", "a/b/", "a/b/c", "a/d", "a.txt", "e/", "e/f", "g/")


def test_without_patterns_all_is_given():
    assert chosen(PROJECT) == [entry.path for entry in PROJECT]


def test_a_directory_comes_before_the_first_entry_in_it_that_is_wanted():
    assert chosen(PROJECT, include=("a/b/c",)) == ["a", "a/b", "a/b/c"]
    assert chosen(PROJECT, exclude=("*", "!a/b/c")) == ["a", "a/b", "a/b/c"]


def test_a_directory_that_matches_brings_what_is_in_it():
    assert chosen(PROJECT, include=("a",)) == ["a", "a/b", "a/b/c", "a/d"]
    assert chosen(PROJECT, exclude=("a",)) == ["a.txt", "e", "e/f", "g"]


def test_both_kinds_of_pattern_count():
    assert chosen(PROJECT, include=("a",), exclude=("**/b",)) == ["a", "a/d"]


def test_a_followed_path_is_included_with_what_it_leads_to():
    entries = [*PROJECT, Entry("l", SYMLINK | 0o777, target="a/b")]
    assert chosen(entries, follow=("l/c",)) == ["a", "a/b", "a/b/c", "l"]


def test_the_root_among_followed_paths_includes_all():
    assert chosen(PROJECT, follow=("a", "/")) == [entry.path for entry in PROJECT]


def test_a_directory_that_cannot_be_listed_fails_whoever_may_want_what_is_in_it():
    closed = Entry("data", DIRECTORY | 0o700, unreadable="Permission denied")
    entries = [*PROJECT, closed]
    others = [entry.path for entry in PROJECT]
    assert chosen(entries, exclude=("data",)) == others
    assert chosen(entries, include=("a",)) == ["a", "a/b", "a/b/c", "a/d"]
    for wanted in ({}, {"exclude": ("data/x",)}, {"include": ("data/x",)}, {"include": ("*",)}):
        with pytest.raises(OSError, match=r"^data: Permission denied$"):
            chosen(entries, **wanted)


def test_every_entry_and_every_link_tried_is_a_step():
    entries = [Entry(f"{number:03}", SYMLINK | 0o777, target="x") for number in range(100)]
    steps = list(select(entries, Wanted(follow=("*1", "*2"), exclude=("*",))))
    assert steps.count(None) >= 300


def test_a_piece_ends_with_the_step_in_which_its_time_does(monkeypatch):
    wanted = Wanted(exclude=("a", "*.txt"))
    assert list(pieces(PROJECT, wanted)) == [list(filter(None, select(PROJECT, wanted)))]
    monkeypatch.setattr(selection, "_PIECE", -1)
    single = [[] if step is None else [step] for step in select(PROJECT, wanted)]
    assert list(pieces(PROJECT, wanted)) == single
    assert [] in single


def test_a_selection_beyond_its_budget_is_refused(monkeypatch):
    monkeypatch.setattr(selection, "BUDGET", 0)
    with pytest.raises(BadPattern, match=r"take more than 0 s for 8 files: \*\.txt !b x$"):
        next(pieces(PROJECT, Wanted(exclude=("*.txt", "!b"), follow=("x",))))


def test_metadata_are_one_header_a_value_and_escaped_where_they_say_so():
    metadata = {
        "dir-name": ["context"],
        "exclude-patterns": ["%C3%A9+%2B", "%21a"],
        "exclude-patterns-encoded": ["1"],
        "followpaths": ["a+b", "%41"],
        "include-patterns": [],
    }
    wanted = Wanted("context", exclude=("é +", "!a"), follow=("a+b", "%41"))
    assert Wanted.parse(metadata) == wanted
    assert Wanted.parse({}) == Wanted()
