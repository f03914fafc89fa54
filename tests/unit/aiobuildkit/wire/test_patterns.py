import time

import pytest

from aiobuildkit.wire.filepath import BadPattern
from aiobuildkit.wire.patterns import MAX_GLOBS, MAX_LENGTH, PatternMatcher


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        *[("a/b", "a/b/"), ("a/**", "a/"), ("a/*", "a/"), ("a/*/**", "a/"), ("{a}", "{a}/")],
        *[("*", None), ("a/*/b", None), ("a?", None), ("^a", None), ("a/**/*", None)],
    ],
)
def test_the_directory_of_all_that_can_match_is_told_where_it_can_be(pattern, prefix):
    (parsed,) = PatternMatcher([pattern]).patterns
    assert parsed.literal_prefix == prefix


@pytest.mark.parametrize("pattern", ["[b-a]", "*[c-a]*", "!", "[[:x:]]*", "\\p{Greek}"])
def test_a_malformed_pattern_is_refused(pattern):
    with pytest.raises(BadPattern):
        PatternMatcher([pattern])


def test_empty_patterns_are_left_out():
    assert PatternMatcher(["", "  ", "\t", "\xa0"]).patterns == []


@pytest.mark.parametrize(
    ("costly", "why"),
    [
        (["*a"] * MAX_GLOBS, "patterns with wildcards of more than 32768 characters"),
        (["[^a]" * MAX_GLOBS], "patterns with wildcards of more than 32768 characters"),
        (["a", "!b"] * MAX_LENGTH, "patterns of more than 1048576 characters"),
        (["[^a]*" * 200] * 4, "more than plain globs"),
        (["a{1000}*"], r"pattern too long: a\{1000\}\*$"),
    ],
)
def test_what_would_cost_too_much_is_refused_at_once(costly, why):
    start = time.process_time()
    with pytest.raises(BadPattern, match=why) as raised:
        PatternMatcher(costly)
    assert len(str(raised.value)) < 200
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 60 + "b",
        "**/" + "*a" * 60 + "b",
        "**/a/" * 40 + "b",
        "**/*a*/" * 40 + "b",
        "?*" * 60 + "b",
        "a**b" * 20 + "c",
        "[^b]*" * 60 + "b",
    ],
)
def test_a_hostile_pattern_takes_no_exponential_time(pattern):
    matcher = PatternMatcher([pattern])
    start = time.process_time()
    for path in ("a" * 255, "a/" * 2000 + "a", "a" * 255 + "/a" * 200, "ab" * 500 + "a"):
        assert not matcher.matches(path, matcher.top)
    assert time.process_time() - start < 2
