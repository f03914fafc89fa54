import re
import time

import pytest

from aiobuildkit.fsutil.filepath import BadPattern
from aiobuildkit.fsutil.patternmatcher import (
    MAX_GLOB,
    MAX_GLOBS,
    MAX_LENGTH,
    MAX_RUNS,
    PatternMatcher,
)


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
        (["a", "*" * (MAX_GLOB + 1)], "a pattern with wildcards of more than 1024 characters"),
        (["a", "!a"] * (MAX_RUNS // 2) + ["a"], "take turns more than 1000 times: a !a a"),
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
    assert time.process_time() - start < 10


def test_as_much_as_is_allowed_means_what_it_should():
    turns = [f"{sign}a{number}" for number in range(MAX_RUNS // 2) for sign in ("", "!")]
    matcher = PatternMatcher([*turns[:-1], "b" * 5000, "?" * MAX_GLOB])
    assert not matcher.matches("a1", matcher.top)
    assert matcher.matches("a499", matcher.top)
    assert matcher.matches("b" * 5000, matcher.top)
    assert matcher.matches("c" * MAX_GLOB, matcher.top)


def test_many_globs_are_matched_in_parts(monkeypatch):
    lengths = []
    compile_ = re.compile

    def recording(expression: str) -> re.Pattern[str]:
        lengths.append(len(expression))
        return compile_(expression)

    monkeypatch.setattr(re, "compile", recording)
    matcher = PatternMatcher([f"*a{number}b" for number in range(2000)])
    assert len(lengths) > 10
    # Other threads stand still while one is matched.
    assert max(lengths) <= 2048
    assert all(matcher.matches(f"xa{number}b", matcher.top) for number in range(2000))
    assert not matcher.matches("xa2000b", matcher.top)


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
    assert time.process_time() - start < 10
