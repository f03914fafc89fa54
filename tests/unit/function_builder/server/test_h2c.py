"""What of a request is parsed, when it offers another protocol."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.server.h2c import UpgradeFilter

OFFER = b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nuPGRADE: h2c\r\nA: b\r\n\r\n"
PASSED = b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nX-Ignored-Upgrade: h2c\r\nA: b\r\n\r\n"
BODY = b"\r\nUpgrade: of the body\r\n\r\nUpgrade: x"


@given(st.lists(st.integers(0, len(OFFER + BODY))))
def test_an_offer_is_renamed_and_a_body_left_alone_however_they_are_cut(cuts):
    sent, upgrades = OFFER + BODY, UpgradeFilter()
    places = [0, *sorted(cuts), len(sent)]
    pieces = [sent[start:end] for start, end in pairwise(places)]
    assert b"".join(map(upgrades.pass_on, pieces)) == PASSED + BODY


def test_of_a_connections_next_request_too():
    upgrades = UpgradeFilter()
    assert upgrades.pass_on(OFFER + BODY) == PASSED + BODY
    upgrades.expect_headers()
    assert upgrades.pass_on(OFFER + BODY) == PASSED + BODY


@pytest.mark.parametrize(
    "line",
    [b"X-Upgrade: h2c", b"Upgraded: h2c", b"A: Upgrade: h2c", b"upgrad: h2c"],
)
def test_what_only_looks_like_one_is_none(line):
    sent = b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n"
    assert UpgradeFilter().pass_on(sent) == sent


@given(st.binary(max_size=40) | st.text("\r\nupgrade:", max_size=40).map(str.encode))
def test_what_has_no_headers_end_waits_for_nine_bytes_at_most(data):
    passed = UpgradeFilter().pass_on(data)
    assert len(passed) >= len(data.lstrip(b"\r\n")) - 9


def test_empty_lines_before_a_request_are_no_end_of_its_headers():
    upgrades = UpgradeFilter()
    pieces = [b"\r\n", b"\r\n\r", b"\n" + OFFER + BODY]
    assert b"".join(map(upgrades.pass_on, pieces)) == PASSED + BODY
