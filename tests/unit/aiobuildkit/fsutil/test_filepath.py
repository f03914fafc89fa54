import time

import pytest

from aiobuildkit.fsutil.filepath import BadPattern, Glob, clean


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        *[("", "."), (".", "."), ("./", "."), ("a/..", "."), ("/", "/"), ("//", "/"), ("///", "/")],
        *[("a//b/", "a/b"), ("./a", "a"), ("//a", "/a"), ("../a", "../a"), ("/../a", "/a")],
        *[("!/a/../b", "!/b"), ("a/./b/..", "a")],
    ],
)
def test_clean_is_the_shortest_equivalent_path(path, cleaned):
    assert clean(path) == cleaned


@pytest.mark.parametrize("pattern", ["[", "[]", "[a", "[a-]", "[]a]", "\\", "a[^]", "[\\"])
def test_a_malformed_glob_is_refused(pattern):
    with pytest.raises(BadPattern, match="syntax error in pattern"):
        Glob(pattern).matches("a")


def test_a_hostile_glob_takes_no_longer_than_any():
    glob = Glob("*a" * 100 + "b")
    start = time.process_time()
    assert not glob.matches("a" * 255)
    assert time.process_time() - start < 10
