"""Whose a request claims to be: with which secrets it must prove it, and in which trust domain."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from starlette.requests import Request

from function_builder.builds.source_policy import SourcePolicy
from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import Refusal
from function_builder.contract.tenancy import Limits, Scope
from function_builder.oidc.trust import Issuer
from function_builder.queue.webhooks import CallbackKeys
from function_builder.registries.credentials import RegistryCredentials
from function_builder.server import keys
from function_builder.server.decisions import Audit
from function_builder.server.prometheus import Metrics
from function_builder.settings import Settings

if TYPE_CHECKING:
    from function_builder.tenants.tenant import Proven

_BEARER: Final = "bearer "


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is known of a request's client by its headers.

    Attributes:
        tenant: the name that it claims; no secret proves the name of a tenant that does not exist.
        secrets: the payload secrets that may have signed it; empty: no signature is asked for.
        domains: the tenant's trust domains, the one in force first.
        settings: those for the tenant's requests.
        scopes: what its bearer token may do, which has proven the tenant; None: it has none.
        credential: the bearer token's id for the audit log; empty: it has none.
    """

    tenant: str = DEFAULT_TENANT
    secrets: Sequence[bytes] = field(repr=False)
    domains: Sequence[str] = field(repr=False)
    settings: Settings
    scopes: frozenset[Scope] | None = None
    credential: str = ""

    def allow(self, scope: Scope) -> None:
        """Check what a bearer token may do; a signature may do all.

        Raises:
            Refusal: 403.
        """
        if self.scopes is not None and scope not in self.scopes:
            raise Refusal(403, f"the bearer token does not have the scope {scope}")


class TenantsInForce(Protocol):
    """The tenants of a builder that has several."""

    @property
    def stale(self) -> bool:
        """Whether their file has changed, and is wrong."""

    def watching(
        self, metrics: Metrics, audit: Audit | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Read the file again whenever it has changed; metrics and audit log have its state."""

    async def claim(self, request: Request) -> Claim:
        """The tenant that a request claims to be.

        Raises:
            Refusal: 400 or 401.
        """

    async def prove(self, token: str) -> Proven:
        """What a bearer token proves.

        Raises:
            Refusal: 401.
        """

    def scopes(self, tenant: str, credentials: Collection[str]) -> frozenset[Scope]:
        """What the credentials of a tenant that are still in the file may do together."""

    def issuer(self, url: str) -> Issuer | None:
        """An OIDC issuer that a tenant trusts; None: none does."""

    def named(self, tenant: str) -> Claim | None:
        """The tenant of a build that was accepted before; None if it is there no longer."""

    def callback_keys(self, tenant: str) -> CallbackKeys | None:
        """What signs the callbacks of a tenant other than `default`; None: it gets none."""

    def credentials(self, tenant: str) -> RegistryCredentials:
        """What a tenant's builds push and pull with; none if the tenant has none."""

    def source_policy(self, tenant: str) -> SourcePolicy:
        """What BuildKit may read for a tenant's builds."""

    def buildkit_urls(self) -> Mapping[str, str]:
        """The `buildkit_url` of each tenant that has BuildKits of its own."""

    def limits(self, tenant: str) -> Limits:
        """A tenant's part of the builder; of one that is gone, what a new one has."""

    def current_secret(self, tenant: str) -> bytes | None:
        """The payload secret that is in force for a tenant; None: it has none."""


def own_claim(settings: Settings) -> Claim:
    """Every request of a builder without other tenants.

    Raises:
        Refusal: 503.
    """
    secrets = keys.signing_secrets(settings)
    domains = [keys.trust_domain(secret) for secret in secrets] or [keys.OPEN_DOMAIN]
    return Claim(secrets=secrets, domains=domains, settings=settings)


def current_secret(settings: Settings, tenants: TenantsInForce | None, tenant: str) -> bytes | None:
    """The payload secret that is in force for a tenant; None: no signature is asked for.

    Raises:
        Refusal: 503.
    """
    if tenants is not None and tenant != DEFAULT_TENANT:
        return tenants.current_secret(tenant)
    return next(iter(keys.signing_secrets(settings)), None)


def refuse_callbacks(tenant: str, tenants: TenantsInForce | None) -> None:
    """Check that a tenant's callbacks can be signed.

    Raises:
        Refusal: 501.
    """
    if tenant != DEFAULT_TENANT and (tenants is None or tenants.callback_keys(tenant) is None):
        raise Refusal(501, "no callbacks are sent for this tenant: it has no webhook secret")


async def read_claim(request: Request, settings: Settings, tenants: TenantsInForce | None) -> Claim:
    """The tenant that a request claims to be.

    Raises:
        Refusal: 400, 401 or 503.
    """
    return own_claim(settings) if tenants is None else await tenants.claim(request)


def bearer(request: Request) -> str:
    """The bearer token of a request (RFC 6750); empty if it has none."""
    authorization = request.headers.get("authorization", "")
    is_bearer = authorization[: len(_BEARER)].lower() == _BEARER
    return authorization[len(_BEARER) :].strip() if is_bearer else ""
