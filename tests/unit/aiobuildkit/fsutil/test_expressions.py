import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiobuildkit.fsutil.expressions import go_expression, python_expression
from aiobuildkit.fsutil.regexp import Regexp

GLOBS = st.lists(
    st.sampled_from(["a", "b", "ab", "/", "*", "**/", "?", "[ab]", "[!a]", "\\*", ".", "{", "é"]),
    min_size=1,
    max_size=10,
).map("".join)
PATHS = st.lists(
    st.sampled_from(["a", "b", "ab", "aab", "abab", "!", "*", "{", "é", "."]),
    min_size=1,
    max_size=6,
).map("/".join)


@given(pattern=GLOBS, paths=st.lists(PATHS, max_size=20))
def test_a_plain_pattern_means_the_same_to_both_engines(pattern, paths):
    plain = python_expression(pattern)
    if plain is None:
        return
    quick = re.compile(plain)
    exact = Regexp(go_expression(pattern))
    for path in paths:
        assert bool(quick.fullmatch(path)) is exact.search(path), path


@pytest.mark.parametrize(
    "pattern",
    [
        *("*.py", "**/*.pyc", "a/*/b", "**/a/**/b", "src/**/*.[ch]", "a?", "*.{js,ts}", "!\\#a*"),
        *("**foo*", "/a*", "a*/**", "[!a]*"),
    ],
)
def test_what_people_write_goes_to_the_quick_engine(pattern):
    assert python_expression(pattern.removeprefix("!")) is not None


@pytest.mark.parametrize("pattern", ["a**b*", "[^a]*", "a|b*", "a{2}*", "\\d*", "^*", "a*]"])
def test_what_means_more_to_go_goes_to_the_exact_one(pattern):
    assert python_expression(pattern) is None
