"""Which tokens of which issuer are a tenant's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from function_builder.contract.public_addresses import is_loopback
from function_builder.contract.tenancy import Scope

ClaimPath: TypeAlias = tuple[str, ...]
"""The names from the token's top to a claim: `("kubernetes.io", "namespace")`."""

_NOT_A_URL: Final = "must be a URL such as https://issuer.example.com, without query and fragment"


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer, and how its keys are read.

    Attributes:
        url: its name, as in the claim `iss`.
        jwks_uri: where its keys are; empty: its discovery document says so.
        authorities: the PEM of those that sign its TLS certificate; empty: the system's.
        token_file: has the bearer token to send to it, read at each fetch; None: none is sent.
    """

    url: str
    jwks_uri: str = ""
    authorities: str = field(default="", repr=False)
    token_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """Tokens that prove a tenant.

    Attributes:
        issuer: who signs them.
        audience: what their claim `aud` must contain.
        claims: the accepted values of each claim. If a token's claim is a list, one element of it
            must be among them.
        scopes: what such a token may do.
    """

    issuer: Issuer
    audience: str
    claims: Mapping[ClaimPath, frozenset[str]]
    scopes: frozenset[Scope]

    @property
    def id(self) -> str:
        """8 hex digits, which change with the issuer, the audience and the claims."""
        claims = sorted((path, sorted(values)) for path, values in self.claims.items())
        said = repr((self.issuer.url, self.audience, claims))
        return hashlib.sha256(said.encode()).hexdigest()[:8]

    def accepts(self, token: Mapping[str, Any]) -> bool:
        """Whether the claims of a verified token are right."""
        return (
            token.get("iss") == self.issuer.url
            and self.audience in _texts(token.get("aud"))
            and all(_texts(_at(token, path)) & values for path, values in self.claims.items())
        )

    def overlaps(self, other: Trust) -> bool:
        """Whether both may accept one token, if its claims are not lists."""
        if (self.issuer.url, self.audience) != (other.issuer.url, other.audience):
            return False
        shared = self.claims.keys() & other.claims.keys()
        return all(self.claims[path] & other.claims[path] for path in shared)


def url_fault(url: str) -> str:
    """Why a URL cannot be an issuer's; empty if it can."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return _NOT_A_URL
    if not url.isascii() or not host or "@" in parts.netloc or set(url) & set("?# \t\r\n\\"):
        return _NOT_A_URL
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return ""
    return "must begin with https://: tokens are as safe as the connection that brings their keys"


def _at(token: Mapping[str, Any], path: ClaimPath) -> Any:
    value: Any = token
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _texts(value: Any) -> frozenset[str]:
    """A claim's value, or those of a list; `true` and numbers as JSON writes them."""
    values = value if isinstance(value, list) else [value]
    return frozenset(
        str(each).lower() if isinstance(each, bool) else str(each)
        for each in values
        if isinstance(each, str | int)
    )
