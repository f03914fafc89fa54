"""The timestamp of a request, as a script makes it and as ours does."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.signature import sign
from function_builder.contract.timestamp import read_timestamp, stamp

SECRET = b"key"
SIGNED = sign(SECRET, b"body")
NOW = 1_785_000_000.25


def made(text: str, signature: str = SIGNED, secret: bytes = SECRET) -> str:
    """The header as docs/api.md has it made."""
    mac = hmac.new(secret, f"{text} {signature}".encode(), hashlib.sha256).hexdigest()
    return f"{text} sha256={mac}"


@given(st.floats(0, 1e11), st.binary(min_size=1), st.binary())
def test_what_is_stamped_is_read(seconds, secret, body):
    signature = sign(secret, body)
    timestamp = read_timestamp(stamp(secret, signature, seconds), signature, [secret])
    assert timestamp is not None
    assert abs(timestamp.seconds - seconds) <= 1e-6 + seconds * 1e-15


@pytest.mark.parametrize("text", ["0", "1785000000", "1785000000.5", "1785000000.123456789"])
def test_seconds_may_have_decimals(text):
    timestamp = read_timestamp(made(text), SIGNED, [b"other", SECRET])
    assert timestamp is not None
    assert timestamp.seconds == float(text)


def test_one_time_and_body_is_one_timestamp_and_another_is_another():
    values = [stamp(SECRET, SIGNED, NOW), stamp(SECRET, SIGNED, NOW + 0.001)]
    values.append(stamp(SECRET, sign(SECRET, b"other"), NOW))
    assert len({value.partition("sha256=")[2] for value in values}) == 3
    assert stamp(SECRET, SIGNED, NOW) == values[0]


@pytest.mark.parametrize(
    ("header", "signature"),
    [
        (None, SIGNED),
        ("", SIGNED),
        ("1785000000", SIGNED),
        (made("1785000000"), None),
        (made("1785000000"), sign(SECRET, b"other body")),
        (made("1785000000"), SIGNED.upper()),
        (made("1785000000", secret=b"stranger's"), SIGNED),
        (made("1785000000").replace("1785", "1786"), SIGNED),
        (made("1785000000").replace("sha256", "sha1"), SIGNED),
        (made("1785000000").upper(), SIGNED),
        (made("1785000000") + "\n", SIGNED),
        (made("nan"), SIGNED),
        (made("inf"), SIGNED),
        (made("-1"), SIGNED),
        (made("1e9"), SIGNED),
        (made("1" * 13), SIGNED),
        (made("١٧٨٥"), SIGNED),
        ("1785000000 sha256=" + "0" * 64, SIGNED),
        # The body's signature is no timestamp's.
        ("1785000000 " + sign(SECRET, b"1785000000"), SIGNED),
    ],
)
def test_another_header_proves_nothing(header, signature):
    assert read_timestamp(header, signature, [SECRET]) is None
