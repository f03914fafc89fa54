"""Where images may be pushed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.errors import Refusal
from function_builder.contract.push_patterns import PushPatterns
from function_builder.contract.references import full_repository


@pytest.mark.parametrize(
    ("patterns", "image", "allowed"),
    [
        ("**", "fn", True),
        ("r.io/a/**", "r.io/a/fn:1", True),
        ("r.io/a/**", "r.io/a/b/c", True),
        ("r.io/a/**", "r.io/a", False),
        ("r.io/a/**", "r.io/ab/fn", False),
        ("r.io/a/*", "r.io/a/b/c", False),
        ("r.io/**/fn", "r.io/a/b/fn", True),
        ("r.io/a-*", "r.io/a-fn", True),
        ("r.io/a", "R.io/a:latest", True),
        ("r.io/a", "r.io/a2", False),
        ("r.io/a", "rxio/a", False),
        ("*/a/fn", "r.io:5000/a/fn", True),
        ("*.r.io/**", "eu.r.io/fn", True),
        ("*.r.io/**", "r.io/fn", False),
        ("localhost:*/fn", "localhost:5000/fn", True),
        ("docker.io/a/*", "a/fn", True),
        ("docker.io/library/fn", "fn", True),
        ("r.io/a, r.io/b", "r.io/b", True),
        ("", "r.io/a", False),
    ],
)
def test_a_push_matches_a_pattern_by_its_full_name(patterns, image, allowed):
    parsed = PushPatterns.parse(patterns)
    if allowed:
        parsed.check(image)
        return
    with pytest.raises(Refusal, match="may not be pushed") as caught:
        parsed.check(image)
    assert caught.value.status == 403
    assert all(pattern in caught.value.reason for pattern in parsed.patterns)


WRONG = """
fn a/** https://r.io/a r.io r.io/ r.io//a r.io/A R.io/a r.io/a:1 r.io/a@sha256:0 r.io/a..b /a
r.io:x/a r.io/*** r.io/-a
"""


@pytest.mark.parametrize("pattern", WRONG.split())
def test_a_pattern_that_matches_nothing_is_refused(pattern):
    with pytest.raises(ValueError, match="matches nothing"):
        PushPatterns.parse(pattern)


_names = st.from_regex(r"[a-c]\.io(:[0-9])?(/[a-c]{1,2}([._-][a-c])?){1,3}", fullmatch=True)


@given(_names, _names)
def test_a_name_is_a_pattern_of_itself_alone(name, other):
    PushPatterns.parse(name).check(f"{name}:tag")
    if full_repository(other) != full_repository(name):
        with pytest.raises(Refusal):
            PushPatterns.parse(name).check(other)
