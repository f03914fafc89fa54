"""The signature, against requests that faas-cli signed."""

import hashlib
import hmac
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract import signature as signature_module
from function_builder.contract import timestamp as timestamp_module
from function_builder.contract.signature import Signature, sign
from function_builder.contract.timestamp import read_timestamp, stamp
from tests.support import VECTORS


def recorded(name: str) -> tuple[bytes, str]:
    headers = json.loads((VECTORS / f"{name}.headers.json").read_text())["headers"]
    return (VECTORS / f"{name}.tar").read_bytes(), headers["X-Build-Signature"]


@pytest.mark.parametrize(
    "name", ["faas-cli-publish", "faas-cli-build-secrets", "openfaas-python-sdk-build"]
)
def test_recorded_signatures_match(name):
    body, header = recorded(name)
    secret = (VECTORS / "payload-secret").read_bytes().strip()
    assert sign(secret, body) == header
    assert sign(secret, body + b"\0") != header


@given(st.binary(), st.lists(st.integers(0, 50)))
def test_pieces_do_not_matter(body, cuts):
    signature = Signature([b"key"])
    start = 0
    for cut in [*sorted(min(cut, len(body)) for cut in cuts), len(body)]:
        signature.update(memoryview(body)[start:cut])
        start = cut
    assert signature.value() == "sha256=" + hmac.new(b"key", body, hashlib.sha256).hexdigest()


def test_a_previous_secret_is_accepted_while_it_rotates():
    body = b"body"
    for signed, expected in [(b"new", True), (b"old", True), (b"other", False)]:
        signature = Signature([b"new", b"old"])
        signature.update(body)
        assert signature.matches(sign(signed, body)) is expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "sha256=",
        "sha1=" + hmac.new(b"key", b"body", hashlib.sha1).hexdigest(),
        hmac.new(b"key", b"body", hashlib.sha256).hexdigest(),
        "SHA256=" + hmac.new(b"key", b"body", hashlib.sha256).hexdigest(),
        "sha256=é",
        "sha256=" + "0" * 64,
    ],
)
def test_another_header_does_not_match(header):
    signature = Signature([b"key"])
    signature.update(b"body")
    assert not signature.matches(header)


@pytest.mark.parametrize("secrets", [[], [b""], [b"key", b""]])
def test_an_empty_secret_is_no_secret(secrets):
    with pytest.raises(ValueError, match="not empty"):
        Signature(secrets)


class Unequal(bytes):
    """A MAC that minds to be compared in any way that stops at the first wrong byte."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared by ==, whose time tells how much was right")

    __ne__ = __eq__
    __hash__ = bytes.__hash__

    def hex(self, *_: object) -> str:
        return UnequalText(super().hex())


class UnequalText(str):
    __slots__ = ()
    __eq__ = Unequal.__eq__
    __ne__ = Unequal.__eq__
    __hash__ = str.__hash__

    def encode(self, *_: object) -> bytes:
        return Unequal(super().encode())


class Mac:
    """`hmac.new`, whose results are these."""

    def __init__(self, secret: bytes, digestmod: str) -> None:
        self._mac = hmac.new(secret, digestmod=digestmod)

    def update(self, data: bytes) -> None:
        self._mac.update(data)

    def hexdigest(self) -> str:
        return UnequalText(self._mac.hexdigest())

    def digest(self) -> bytes:
        return Unequal(self._mac.digest())


@pytest.fixture
def compared(monkeypatch) -> list[bool]:
    """What `hmac.compare_digest` gave, which alone may compare."""
    results: list[bool] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        results.append(hmac.compare_digest(one, other))
        return results[-1]

    guarded = SimpleNamespace(
        new=Mac,
        digest=lambda *given: Unequal(hmac.digest(*given)),
        compare_digest=compare_digest,
    )
    for module in (signature_module, timestamp_module):
        monkeypatch.setattr(module, "hmac", guarded)
    return results


@pytest.mark.parametrize("secret", [b"new", b"old", b"other"])
def test_the_time_of_a_comparison_tells_nothing(compared, secret):
    header = "sha256=" + hmac.new(secret, b"body", hashlib.sha256).hexdigest()
    signature = Signature([b"new", b"old"])
    signature.update(b"body")
    assert signature.matches(header) is (secret != b"other")
    # Each secret is tried, also after one that was right.
    assert compared == [secret == b"new", secret == b"old"]


@pytest.mark.parametrize("secret", [b"new", b"old", b"other"])
def test_nor_does_that_of_a_timestamps(compared, secret):
    header = str(stamp(secret, "sha256=…", 1.0))
    known = read_timestamp(header, "sha256=…", [b"new", b"old"])
    assert (known is None) is (secret == b"other")
    assert compared == [secret == b"new", secret == b"old"]
