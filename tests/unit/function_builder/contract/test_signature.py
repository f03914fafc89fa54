"""The signature, against requests that faas-cli signed."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.signature import Signature, sign
from tests.support import VECTORS


def recorded(name: str) -> tuple[bytes, str]:
    headers = json.loads((VECTORS / f"{name}.headers.json").read_text())["headers"]
    return (VECTORS / f"{name}.tar").read_bytes(), headers["X-Build-Signature"]


@pytest.mark.parametrize("name", ["faas-cli-publish", "faas-cli-build-secrets"])
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
