"""One tenant, and all tenants of a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from function_builder.builds.source_policy import PolicyRule
from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.tenancy import ALL_SCOPES, NO_LIMITS, Limits, Scope
from function_builder.oidc.trust import Issuer, Trust, TrustIndex, claim_values

_DECOY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; the file contains only its hash.

    Attributes:
        sha256: of the token, in hex.
        scopes: what it may do.
    """

    sha256: str
    scopes: frozenset[Scope] = ALL_SCOPES

    @property
    def id(self) -> str:
        """8 hex digits."""
        return self.sha256[:8]


class Proven(NamedTuple):
    """The tenant and the scopes that a bearer token proves.

    Attributes:
        tenant: whose it is.
        scopes: what it may do.
        credential: its id for the audit log.
        credentials: the ids of what accepted it in the tenants file.
        claims: of an OIDC token.
    """

    tenant: str
    scopes: frozenset[Scope]
    credential: str
    credentials: Sequence[str]
    claims: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One tenant.

    Attributes:
        name: 1 to 40 lower-case letters, digits and dashes.
        secrets: its payload secrets, the current one first; empty: only tokens prove it.
        webhook_keys: the keys that sign its callbacks, the current one first; empty: it has none.
        hosts: the host names of its requests, without ports.
        overrides: its own values of settings, by the field's name.
        limits: its limits.
        registry_config: the file of its registry credentials; None: it has none.
        buildkit_url: its own BuildKits; empty: it uses the builder's.
        build_secrets_key: the file of its key for build secrets; None: it has none.
        policy: its source policy, in addition to the builder's.
        tokens: its bearer tokens.
        trusts: the OIDC tokens that prove it.
        contents: the digests of its files that are read again for each build.
    """

    name: str
    secrets: Sequence[bytes] = field(default=(), repr=False)
    webhook_keys: Sequence[bytes] = field(default=(), repr=False)
    hosts: Sequence[str] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = NO_LIMITS
    registry_config: Path | None = None
    buildkit_url: str = ""
    build_secrets_key: Path | None = None
    policy: Sequence[PolicyRule] = ()
    tokens: Sequence[Token] = ()
    trusts: Sequence[Trust] = ()
    contents: Sequence[str] = field(default=(), repr=False)


class Tenants:
    """All tenants of one file.

    Args:
        tenants: in the order of the file.

    Attributes:
        by_name: each of them.
        issuers: the OIDC issuers that they trust.
    """

    def __init__(self, tenants: Sequence[Tenant]) -> None:
        self.by_name: Mapping[str, Tenant] = {tenant.name: tenant for tenant in tenants}
        self.buildkit_urls: Mapping[str, str] = {
            tenant.name: tenant.buildkit_url for tenant in tenants if tenant.buildkit_url
        }
        self._by_host = {host: tenant for tenant in tenants for host in tenant.hosts}
        width = max(1, *(len(tenant.secrets) for tenant in tenants))
        self._decoys = [os.urandom(_DECOY_BYTES) for _ in range(width)]
        self._by_token = {
            token.sha256: (tenant, token) for tenant in tenants for token in tenant.tokens
        }
        trusts = [(tenant.name, trust) for tenant in tenants for trust in tenant.trusts]
        self.issuers: Sequence[Issuer] = list({trust.issuer: None for _, trust in trusts})
        self._trusts = TrustIndex()
        for name, trust in trusts:
            self._trusts.add(name, trust)

    def named(self, name: str) -> Tenant | None:
        """The tenant of a name."""
        return self.by_name.get(name)

    def at_host(self, authority: str) -> Tenant | None:
        """The tenant of a `Host` header; the default one's name is never among them."""
        return self._by_host.get(_host(authority))

    def of_token(self, token: str) -> tuple[Tenant, Token] | None:
        """The tenant of a bearer token.

        The search compares hashes, so its time shows nothing about a token.
        """
        digest = hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
        return self._by_token.get(digest)

    def of_claims(self, claims: Mapping[str, Any]) -> Mapping[str, Sequence[Trust]]:
        """The tenants that a verified OIDC token proves, with the trusts that accept it."""
        found: dict[str, list[Trust]] = {}
        issuer = str(claims.get("iss"))
        for name, trust in self._trusts.candidates(issuer, partial(claim_values, claims)):
            if trust.accepts(claims):
                found.setdefault(name, []).append(trust)
        return found

    def scopes(self, name: str, credentials: Collection[str]) -> frozenset[Scope]:
        """The scopes of those of a tenant's credentials that are still in the file."""
        tenant = self.by_name.get(name)
        own: Sequence[Token | Trust] = () if tenant is None else [*tenant.tokens, *tenant.trusts]
        return frozenset[Scope]().union(*(each.scopes for each in own if each.id in credentials))

    def signers(self, tenant: Tenant | None) -> Sequence[bytes]:
        """The payload secrets to try for a request.

        Random ones are added, so that their number is the same for each tenant, and for one that
        does not exist. So the time of a wrong signature does not show which tenants exist.
        """
        secrets = () if tenant is None else tenant.secrets
        return [*secrets, *self._decoys[len(secrets) :]]

    @property
    def default(self) -> Tenant:
        """The tenant of requests that name none."""
        return self.by_name[DEFAULT_TENANT]


def _host(authority: str) -> str:
    host, colon, port = authority.rpartition(":")
    return (host if colon and port.isdigit() else authority).lower().rstrip(".")
