"""The tenant that a request claims, the secrets that prove it, and its trust domains."""

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
    """What a request's headers say about its client.

    Attributes:
        tenant: the name that it claims; the tenant may not exist.
        secrets: the payload secrets that may have signed it; empty: signatures are not required.
        domains: the tenant's trust domains, the current one first.
        settings: the builder's, with the tenant's own values.
        scopes: those of the bearer token that has proven the tenant; None: there is no token.
        credential: the bearer token's id for the audit log; empty: there is no token.
    """

    tenant: str = DEFAULT_TENANT
    secrets: Sequence[bytes] = field(repr=False)
    domains: Sequence[str] = field(repr=False)
    settings: Settings
    scopes: frozenset[Scope] | None = None
    credential: str = ""

    def allow(self, scope: Scope) -> None:
        """Check the scope of a bearer token; a signature has every scope.

        Raises:
            Refusal: 403.
        """
        if self.scopes is not None and scope not in self.scopes:
            raise Refusal(403, f"the bearer token does not have the scope {scope}")


class CurrentTenants(Protocol):
    """The tenants of a builder with `tenants_file`."""

    @property
    def stale(self) -> bool:
        """Whether the file has changed and is not valid."""

    def watching(
        self, metrics: Metrics, audit: Audit | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Read the file again when it changes; record that in the metrics and the audit log."""

    async def claim(self, request: Request) -> Claim:
        """The tenant that a request claims to be.

        Raises:
            Refusal: 400 or 401.
        """

    async def prove(self, token: str) -> Proven:
        """The tenant and the scopes that a bearer token proves.

        Raises:
            Refusal: 401.
        """

    def scopes(self, tenant: str, credentials: Collection[str]) -> frozenset[Scope]:
        """The scopes of those of a tenant's credentials that are still in the file."""

    def issuer(self, url: str) -> Issuer | None:
        """An OIDC issuer that a tenant trusts; None: no tenant trusts it."""

    def named(self, tenant: str) -> Claim | None:
        """The tenant of a build that was accepted earlier; None if the tenant was removed."""

    def callback_keys(self, tenant: str) -> CallbackKeys | None:
        """The keys that sign the callbacks of a tenant other than `default`; None: it has none."""

    def credentials(self, tenant: str) -> RegistryCredentials:
        """The registry credentials of a tenant's builds; empty if the tenant has none."""

    def source_policy(self, tenant: str) -> SourcePolicy:
        """What BuildKit may read for a tenant's builds."""

    def buildkit_urls(self) -> Mapping[str, str]:
        """The `buildkit_url` of each tenant that has BuildKits of its own."""

    def limits(self, tenant: str) -> Limits:
        """A tenant's limits; no limits for a tenant that was removed."""

    def current_secret(self, tenant: str) -> bytes | None:
        """A tenant's current payload secret; None: it has none."""


def own_claim(settings: Settings) -> Claim:
    """The claim of every request to a builder without `tenants_file`.

    Raises:
        Refusal: 503.
    """
    secrets = keys.signing_secrets(settings)
    domains = [keys.trust_domain(secret) for secret in secrets] or [keys.OPEN_DOMAIN]
    return Claim(secrets=secrets, domains=domains, settings=settings)


def current_secret(settings: Settings, tenants: CurrentTenants | None, tenant: str) -> bytes | None:
    """A tenant's current payload secret; None: signatures are not required.

    Raises:
        Refusal: 503.
    """
    if tenants is not None and tenant != DEFAULT_TENANT:
        return tenants.current_secret(tenant)
    return next(iter(keys.signing_secrets(settings)), None)


def refuse_callbacks(tenant: str, tenants: CurrentTenants | None) -> None:
    """Check that a tenant's callbacks can be signed.

    Raises:
        Refusal: 501.
    """
    if tenant != DEFAULT_TENANT and (tenants is None or tenants.callback_keys(tenant) is None):
        raise Refusal(501, "no callbacks are sent for this tenant: it has no webhook secret")


async def read_claim(request: Request, settings: Settings, tenants: CurrentTenants | None) -> Claim:
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
