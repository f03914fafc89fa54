"""Public keys of an issuer (RFC 7517), and the tokens that they verify (RFC 7519, RFC 8725)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

LEEWAY_SECONDS: Final = 30.0
"""Seconds by which the clocks of issuer and builder may differ."""

MAX_TOKEN_BYTES: Final = 16 * 1024

_MAX_KEYS: Final = 100
_MIN_RSA_BITS: Final = 2048
_ALGORITHMS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""Algorithms by key type and curve. Only asymmetric ones, because the keys are public."""

_PUBLIC_MEMBERS: Final = ("kty", "crv", "n", "e", "x", "y")
_TYPES: Final = ("jwt", "at+jwt")
"""The accepted types. Other tokens, such as logout tokens, prove nothing (RFC 8725, 3.11)."""

_FAULTS: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""The exceptions of PyJWT for invalid tokens and keys."""


class Rejected(Exception):
    """A token is not accepted; the text says why, for the log."""


class Key(NamedTuple):
    """A public key.

    Attributes:
        public: of the cryptography library.
        algorithms: those that a token which names the key may use.
    """

    public: Any
    algorithms: tuple[str, ...]


Keys: TypeAlias = Mapping[str, Key]
"""By their `kid`; empty for a key without one."""


class Header(NamedTuple):
    """The unverified content of a token that is needed to find its key.

    Attributes:
        issuer: its claim `iss`.
        kid: the ID of its key; empty: it names none.
    """

    issuer: str
    kid: str


def read_keys(document: Any) -> Keys:
    """The keys of a JWK set that can verify tokens; others are skipped.

    Raises:
        ValueError: it is not a JWK set.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("the answer is not a JWK set")  # noqa: TRY004 (as for other text)
    found: dict[str, Key] = {}
    for entry in entries[:_MAX_KEYS]:
        key = _read_key(entry) if isinstance(entry, dict) else None
        kid = entry.get("kid", "") if key else None
        if key and isinstance(kid, str):
            found.setdefault(kid, key)
    return found


def _read_key(entry: Mapping[str, Any]) -> Key | None:
    kind = (str(entry.get("kty")), str(entry.get("crv", "")))
    allowed = _ALGORITHMS.get(kind, ())
    if entry.get("alg"):
        allowed = tuple(name for name in allowed if name == entry["alg"])
    if not allowed or entry.get("use", "sig") != "sig":
        return None
    public = {name: entry[name] for name in _PUBLIC_MEMBERS if name in entry}
    try:
        key = jwt.PyJWK(public, algorithm=allowed[0]).key
    except _FAULTS:
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        return None
    return Key(key, allowed)


def read_header(token: str) -> Header:
    """Read the unverified issuer and key ID of a token. Headers such as `jku` are not read.

    Raises:
        Rejected: it is not a token of an issuer.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise Rejected("it is too long")
    try:
        parsed = jwt.decode_complete(token, options={"verify_signature": False})
    except _FAULTS as error:
        raise Rejected(f"it is not a JWT: {type(error).__name__}") from error
    header, payload = parsed["header"], parsed["payload"]
    issuer, kid = payload.get("iss"), header.get("kid", "")
    if not isinstance(issuer, str) or not isinstance(kid, str):
        raise Rejected("its iss or kid is not a text")
    if "crit" in header or str(header.get("typ", "jwt")).lower() not in _TYPES:
        raise Rejected("its header has crit, or another typ than JWT")
    return Header(issuer, kid)


def verified(token: str, issuer: str, key: Key) -> Mapping[str, Any]:
    """Verify the signature, issuer and times of a token; return its claims, with any audience.

    Raises:
        Rejected: one of them is wrong.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key.public,
            algorithms=list(key.algorithms),
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["iss", "aud", "exp"], "verify_aud": False},
        )
    except _FAULTS as error:
        raise Rejected(f"{type(error).__name__}: {error}") from error
    return claims


def parse_json(body: bytes) -> Any:
    """A JSON document of an issuer.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("the answer is not JSON") from error
