"""Image references: what is pushed, and where the tag is."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.config import parse_config
from function_builder.contract.errors import Refusal
from function_builder.contract.references import normalise_reference, split_reference


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("fn", ("fn", "")),
        ("fn:1", ("fn", "1")),
        ("r:5000/fn", ("r:5000/fn", "")),
        ("r:5000/fn:1", ("r:5000/fn", "1")),
    ],
)
def test_the_tag_is_what_follows_the_last_colon_unless_a_path_does(reference, parts):
    assert split_reference(reference) == parts


@given(st.text(max_size=50))
def test_a_normal_reference_stays_as_it_is(text):
    try:
        once = normalise_reference(text)
    except Refusal:
        return
    assert normalise_reference(once) == once


@pytest.mark.parametrize("part", ["a-", "a/", "a.a-", "a__"])
def test_a_reference_of_any_length_is_refused_at_once(part):
    document = json.dumps({"image": part * (1_000_000 // len(part))}).encode()
    began = time.process_time()
    with pytest.raises(Refusal):
        parse_config(document)
    assert time.process_time() - began < 10
