"""The tokens of OpenID Connect issuers that prove a tenant."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """An issuer, and the way to read its keys.

    Attributes:
        url: its name, as in the claim `iss`.
        jwks_uri: the URL of its keys; empty: its discovery document has it.
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
        issuer: signs them.
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
        """Whether the claims of a verified token match."""
        return (
            token.get("iss") == self.issuer.url
            and self.audience in claim_values(token, ("aud",))
            and all(claim_values(token, path) & values for path, values in self.claims.items())
        )

    def overlaps(self, other: Trust) -> bool:
        """Whether both may accept one token, if its claims are not lists."""
        if (self.issuer.url, self.audience) != (other.issuer.url, other.audience):
            return False
        shared = self.claims.keys() & other.claims.keys()
        return all(self.claims[path] & other.claims[path] for path in shared)


class TrustIndex:
    """The trusts of all tenants, by the values of their claims.

    A search looks only at the trusts that share a value of one claim: with 1,000 tenants of one
    issuer, a comparison of each trust with all others took most of the time of reading the file.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, frozenset[ClaimPath]], _Group] = {}
        self._names: dict[str, list[frozenset[ClaimPath]]] = {}

    def add(self, owner: str, trust: Trust) -> None:
        """Add a tenant's trust."""
        url, paths = trust.issuer.url, frozenset(trust.claims)
        group = self._groups.get((url, paths))
        if group is None:
            group = self._groups[url, paths] = _Group()
            self._names.setdefault(url, []).append(paths)
        group.add(owner, trust)

    def candidates(
        self, url: str, wanted: Callable[[ClaimPath], frozenset[str] | None]
    ) -> Iterator[tuple[str, Trust]]:
        """Trusts with their owners: all that have the wanted values, and some others.

        Args:
            url: of the issuer.
            wanted: values of a claim, of which a trust must have one; None: any value is right.
        """
        for paths in self._names.get(url, ()):
            yield from self._groups[url, paths].candidates(wanted, paths)


class _Group:
    """The trusts of one issuer that name the same claims."""

    def __init__(self) -> None:
        self._all: list[tuple[str, Trust]] = []
        self._by_value: dict[tuple[ClaimPath, str], list[tuple[str, Trust]]] = {}

    def add(self, owner: str, trust: Trust) -> None:
        self._all.append((owner, trust))
        for path, values in trust.claims.items():
            for value in values:
                self._by_value.setdefault((path, value), []).append((owner, trust))

    def candidates(
        self, wanted: Callable[[ClaimPath], frozenset[str] | None], paths: frozenset[ClaimPath]
    ) -> Sequence[tuple[str, Trust]]:
        found = self._all
        for path in paths:
            values = wanted(path)
            if values is None:
                continue
            having = [each for value in values for each in self._by_value.get((path, value), ())]
            found = min(found, having, key=len)
        return found


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


def claim_values(token: Mapping[str, Any], path: ClaimPath) -> frozenset[str]:
    """A claim's value, or those of a list; `true` and numbers as JSON writes them."""
    value: Any = token
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    values = value if isinstance(value, list) else [value]
    return frozenset(
        str(each).lower() if isinstance(each, bool) else str(each)
        for each in values
        if isinstance(each, str | int)
    )
