"""Which tokens a key verifies, and that no other token is accepted."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from function_builder.oidc.keys import (
    MAX_TOKEN_BYTES,
    Rejected,
    parse_json,
    read_header,
    read_keys,
    verified,
)
from tests.support.issuer import Issuer

URL = "https://issuer.example.com"


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    made = Issuer(URL)
    made.add_key("two")
    made.keys["rsa"] = rsa.generate_private_key(65537, 2048)
    return made


def accept(issuer: Issuer, token: str) -> Any:
    keys = read_keys({"keys": [issuer.jwk(kid) for kid in issuer.keys]})
    header = read_header(token)
    key = keys.get(header.kid)
    if key is None:
        raise Rejected("no key")
    return verified(token, URL, key)


def forged(issuer: Issuer, header: dict[str, Any], signature: bytes = b"", **claims: Any) -> str:
    payload = issuer.token(**claims).split(".")[1]
    return f"{encoded(json.dumps(header).encode())}.{payload}.{encoded(signature)}"


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.mark.parametrize("kid", ["one", "rsa"])
def test_a_token_of_the_issuer_is_verified(issuer: Issuer, kid: str) -> None:
    assert accept(issuer, issuer.token(kid))["repository_owner"] == "acme"
    access = issuer.token(kid, header={"typ": "at+jwt", "jku": "https://a.example", "x5u": "b"})
    assert accept(issuer, access)["iss"] == URL


def hostile(issuer: Issuer) -> Iterator[tuple[str, str]]:
    now = time.time()
    public = issuer.keys["rsa"].public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    yield "unsigned", forged(issuer, {"alg": "none", "kid": "one"})
    yield "unsigned in capitals", forged(issuer, {"alg": "nOnE", "kid": "one"})
    for name, secret in (("pem", pem), ("der", der), ("nothing", b"")):
        text = forged(issuer, {"alg": "HS256", "kid": "rsa"}).rpartition(".")[0]
        mac = jwt.get_algorithm_by_name("HS256").sign(text.encode(), secret)
        yield f"HS256 with the public key, {name}", f"{text}.{encoded(mac)}"
    yield "the algorithm of another key", issuer.token("one", header={"kid": "rsa"})
    yield "another key's signature", issuer.token("one", header={"kid": "two"})
    good = issuer.token().split(".")
    other = issuer.token(repository_owner="zeta").split(".")
    yield "the claims of another token", ".".join((good[0], other[1], good[2]))
    yield "a zero signature", ".".join((*good[:2], encoded(bytes(64))))
    stranger = Issuer(URL)
    jwk = stranger.jwk("one")
    yield "a key of its own", stranger.token(header={"jwk": jwk})
    yield "a key at a URL of its own", stranger.token(header={"jku": "https://a.example/jwks"})
    kids: list[Any] = [
        "../../dev/null",
        "/etc/passwd",
        "' OR 1=1",
        "\ud800",
        "",
        ["one"],
        {},
        None,
        1,
    ]
    for kid in kids:
        token = issuer.token("one").split(".")
        head = encoded(json.dumps({"alg": "ES256", "kid": kid}).encode())
        yield f"kid {kid!r}", f"{head}.{token[1]}.{token[2]}"
    yield "another issuer", issuer.token(iss="https://other.example.com")
    yield "a longer issuer", issuer.token(iss=f"{URL}/")
    yield "a list of issuers", forged_claims(issuer, f'"exp": 9999999999, "iss": ["{URL}"]')
    yield "expired", issuer.token(exp=now - 60)
    yield "valid later", issuer.token(nbf=now + 60)
    yield "issued later", issuer.token(iat=now + 60)
    yield "without iss", issuer.token(iss=None)
    yield "without aud", issuer.token(aud=None)
    yield "without exp", issuer.token(exp=None)
    yield "infinite", forged_claims(issuer, '"exp": 1e400')
    yield "not a number", forged_claims(issuer, '"exp": NaN')
    yield "deep", forged_claims(issuer, '"exp": 1, "deep": ' + 5000 * "[" + 5000 * "]")
    yield "a huge number", forged_claims(issuer, '"exp": ' + 5000 * "9")
    yield "critical", issuer.token(header={"crit": ["exp"]})
    yield "a token of a logout", issuer.token(header={"typ": "logout+jwt"})
    yield "huge", issuer.token(more=MAX_TOKEN_BYTES * "a")
    for text in ("", ".", "..", "a.b.c", "e30.e30.", "é.é.é", good[0], ".".join(good[:2])):
        yield f"no token {text[:9]!r}", text
    yield "an array", f"{good[0]}.{encoded(b'[]')}.{good[2]}"


def forged_claims(issuer: Issuer, text: str) -> str:
    """A token whose signature is right, with claims that no library would write."""
    payload = f'{{"iss": "{URL}", "aud": "a", {text}}}'.encode()
    return jwt.PyJWS().encode(payload, issuer.keys["one"], "ES256", headers={"kid": "one"})


def test_hostile_tokens_are_rejected(issuer: Issuer) -> None:
    accepted = []
    for name, token in hostile(issuer):
        try:
            accept(issuer, token)
        except Rejected:
            continue
        accepted.append(name)
    assert accepted == []


def test_keys_that_must_not_verify_are_skipped(issuer: Issuer) -> None:
    jwk = issuer.jwk("one")
    weak = jwt.get_algorithm_by_name("RS256").to_jwk(
        rsa.generate_private_key(65537, 1024).public_key(), as_dict=True
    )
    wrong: list[Any] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "a"},
        jwk | {"use": "enc"},
        jwk | {"alg": "HS256"},
        jwk | {"alg": "none"},
        jwk | {"crv": "P-384"},
        jwk | {"x": "AA"},
        jwk | {"x": 1},
        jwk | {"kty": ["EC"]},
        jwk | {"kid": 1},
        weak | {"kid": "weak"},
        "text",
        None,
    ]
    assert read_keys({"keys": wrong}) == {}
    (key,) = read_keys({"keys": [*wrong, jwk, jwk | {"x": "AA"}]}).values()
    assert key.algorithms == ("ES256",)
    assert isinstance(key.public, ec.EllipticCurvePublicKey)


def test_a_private_key_among_the_keys_is_read_as_a_public_one(issuer: Issuer) -> None:
    private = jwt.get_algorithm_by_name("ES256").to_jwk(issuer.keys["one"], as_dict=True)
    (key,) = read_keys({"keys": [private]}).values()
    assert isinstance(key.public, ec.EllipticCurvePublicKey)


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, {"keys": None}])
def test_what_is_not_a_key_set_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="not a JWK set"):
        read_keys(document)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", 100_000 * b"["])
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        parse_json(body)
