"""The tenants of `tenants_file`, for requests and for the queue.

Importing this imports YAML's reader, so only a builder with `tenants_file` does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from starlette.requests import Request

from function_builder.builds.source_policy import SourcePolicy
from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import Refusal
from function_builder.contract.reads import token_tenant
from function_builder.contract.tenancy import NO_LIMITS, TENANT_HEADER, Limits, Scope
from function_builder.errors import StartError
from function_builder.oidc.trust import Issuer
from function_builder.queue.webhooks import CallbackKeys
from function_builder.registries.credential_helpers import CredentialHelpers
from function_builder.registries.credentials import RegistryCredentials
from function_builder.server import keys
from function_builder.server.claims import Claim, bearer
from function_builder.server.decisions import Audit, AuditEvent, TenantsRead
from function_builder.server.prometheus import Metrics
from function_builder.settings import Settings
from function_builder.tenants.current import Changes, CurrentTenants
from function_builder.tenants.document import TenantsError
from function_builder.tenants.overrides import tenant_settings
from function_builder.tenants.tenant import Proven, Tenant, Tenants

if TYPE_CHECKING:
    from function_builder.oidc.issuers import Issuers

CHECK_SECONDS: Final = 2.0
"""Seconds between two checks whether the files have changed."""

_JWT_DOTS: Final = 2

_NOT_ACCEPTED: Final = (
    "the bearer token is not accepted: it is unknown here, or has expired or was revoked"
)

_log = structlog.get_logger(__name__)


class Tenancy:
    """The tenant of a request, by its bearer token, its `X-Build-Tenant`, or its host.

    Args:
        current: the tenants, read again when their file changes.
        settings: the builder's.
        own: the builder's own registry credentials.
        policy: its source policy.
    """

    def __init__(
        self,
        current: CurrentTenants,
        settings: Settings,
        own: RegistryCredentials,
        policy: SourcePolicy,
    ) -> None:
        self._current = current
        self._settings = settings
        self._own = own
        self._policy = policy
        self._helpers = CredentialHelpers()
        self._issuers: Issuers | None = None
        self._issuers_of: Tenants | None = None
        self._metrics: Metrics | None = None
        self._audit: Audit | None = None

    @property
    def stale(self) -> bool:
        """Whether the file has changed and is not valid."""
        return self._current.stale

    async def claim(self, request: Request) -> Claim:
        """The tenant that a request claims to be.

        A tenant that does not exist gets random secrets. So its request is processed, and fails,
        like a request with a wrong signature.

        Raises:
            Refusal: 400, 401.
        """
        tenants, wanted = self._tenants, request.headers.get(TENANT_HEADER)
        token = bearer(request)
        named = token_tenant(token) if token else None
        if token and named is None:
            proven = await self.prove(token)
            if wanted not in (None, proven.tenant):
                raise Refusal(400, f"{TENANT_HEADER} is not the tenant of the bearer token")
            return self._claim(tenants, proven.tenant, tenants.named(proven.tenant), proven)
        name = named or wanted
        if name is not None:
            return self._claim(tenants, name, tenants.named(name))
        tenant = tenants.at_host(request.headers.get("host", "")) or tenants.default
        return self._claim(tenants, tenant.name, tenant)

    async def prove(self, token: str) -> Proven:
        """What a bearer token proves.

        Raises:
            Refusal: 401.
        """
        tenants = self._tenants
        found = tenants.of_token(token)
        if found is not None:
            tenant, known = found
            return Proven(tenant.name, known.scopes, f"token:{known.id}", [known.id])
        issuers = self._trusted(tenants)
        if issuers is None or token.count(".") != _JWT_DOTS:
            raise Refusal(401, _NOT_ACCEPTED)
        from function_builder.server.identity import prove  # noqa: PLC0415 (few tenants have oidc)

        return await prove(token, tenants, issuers, _NOT_ACCEPTED)

    def scopes(self, tenant: str, credentials: Collection[str]) -> frozenset[Scope]:
        """The scopes of those of a tenant's credentials that are still in the file."""
        return self._tenants.scopes(tenant, credentials)

    def issuer(self, url: str) -> Issuer | None:
        """An issuer that a tenant trusts; None: no tenant trusts it."""
        return next((each for each in self._tenants.issuers if each.url == url), None)

    def _trusted(self, tenants: Tenants) -> Issuers | None:
        """The issuers that the tenants trust; None: they trust none."""
        if self._issuers is None and tenants.issuers:
            from function_builder.oidc.issuers import Issuers  # noqa: PLC0415 (as above)

            self._issuers = Issuers(failed=self._count_failure)
        if self._issuers is not None and self._issuers_of is not tenants:
            self._issuers.use(tenants.issuers)
            self._issuers_of = tenants
        return self._issuers

    def _count_failure(self, issuer: str) -> None:
        if self._metrics is not None:
            self._metrics.oidc_failures.labels(issuer).inc()

    async def _refresh_issuers(self) -> None:
        assert self._metrics is not None
        ages = {} if self._issuers is None else self._issuers.ages()
        self._metrics.oidc_keys_age.clear()
        for issuer, seconds in ages.items():
            self._metrics.oidc_keys_age.labels(issuer).set(seconds)
            # Starts at 0, so that the first failure is an increase.
            self._metrics.oidc_failures.labels(issuer)

    def named(self, tenant: str) -> Claim | None:
        """The tenant of a build that was accepted earlier; None if the tenant was removed."""
        tenants = self._tenants
        found = tenants.named(tenant)
        return None if found is None else self._claim(tenants, tenant, found)

    def callback_keys(self, tenant: str) -> CallbackKeys | None:
        """The keys that sign the callbacks of a tenant other than `default`; None: it has none."""
        found = self._tenants.named(tenant)
        if found is None or not found.webhook_keys:
            return None
        return CallbackKeys(list(found.webhook_keys), next(iter(found.secrets), None))

    def credentials(self, tenant: str) -> RegistryCredentials:
        """The registry credentials of a tenant's builds; empty if the tenant has none."""
        if tenant == DEFAULT_TENANT:
            return self._own
        found = self._tenants.named(tenant)
        file = None if found is None else found.registry_config
        return RegistryCredentials(file, helpers=self._helpers)

    def source_policy(self, tenant: str) -> SourcePolicy:
        """What BuildKit may read for a tenant's builds."""
        found = self._tenants.named(tenant)
        return self._policy if found is None else self._policy.narrowed(found.policy)

    def buildkit_urls(self) -> Mapping[str, str]:
        """The `buildkit_url` of each tenant that has BuildKits of its own."""
        return self._tenants.buildkit_urls

    def limits(self, tenant: str) -> Limits:
        """A tenant's limits; no limits for a tenant that was removed."""
        found = self._tenants.named(tenant)
        return NO_LIMITS if found is None else found.limits

    def current_secret(self, tenant: str) -> bytes | None:
        """A tenant's current payload secret; None: it has none."""
        found = self._tenants.named(tenant)
        return None if found is None else next(iter(found.secrets), None)

    @contextlib.asynccontextmanager
    async def watching(self, metrics: Metrics, audit: Audit | None = None) -> AsyncIterator[None]:
        """Read the file again when it changes; record that in the metrics and the audit log."""
        metrics.tenants.set_function(lambda: len(self._tenants.by_name))
        metrics.tenants_stale.set_function(lambda: float(self.stale))
        metrics.refreshers.append(self._refresh_issuers)
        self._metrics, self._audit = metrics, audit
        self._note_read(Changes.between({}, self._tenants.by_name))
        task = asyncio.create_task(self._watch(), name="tenants_file")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if self._issuers is not None:
                self._issuers.close()

    async def _watch(self) -> None:
        while True:
            if (issuers := self._trusted(self._tenants)) is not None:
                issuers.refresh()
            await asyncio.sleep(CHECK_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Read the file again if it has changed. An invalid file is logged, and has no effect."""
        try:
            changes = await asyncio.to_thread(self._current.refresh)
        except (TenantsError, keys.KeyFileError) as error:
            _log.error("tenants_file is not valid: the previous tenants stay", why=str(error))
            self._note_read(Changes(), str(error))
        else:
            if changes is not None:
                _log.info("tenants_file was read again", tenants=len(self._tenants.by_name))
                self._note_read(changes)

    def _note_read(self, changes: Changes, why: str = "") -> None:
        if self._audit is not None:
            read = TenantsRead(self._current.digest, *changes, why)
            self._audit.note(AuditEvent.TENANTS, read)

    @property
    def _tenants(self) -> Tenants:
        return self._current.tenants

    def _claim(
        self,
        tenants: Tenants,
        name: str,
        tenant: Tenant | None,
        proven: Proven | None = None,
    ) -> Claim:
        own = tenants.default.secrets
        if name == DEFAULT_TENANT:
            domains = [keys.trust_domain(secret) for secret in own]
        else:
            domains = [keys.tenant_domain(secret, name) for secret in own]
        settings = self._settings
        if tenant is not None:
            settings = tenant_settings(settings, tenant, is_default=name == DEFAULT_TENANT)
        return Claim(
            tenant=name,
            secrets=tenants.signers(tenant),
            domains=domains,
            settings=settings,
            scopes=None if proven is None else proven.scopes,
            credential="" if proven is None else proven.credential,
        )


def read_tenancy(settings: Settings, own: RegistryCredentials, policy: SourcePolicy) -> Tenancy:
    """Read `tenants_file`.

    Args:
        settings: the builder's.
        own: its own registry credentials.
        policy: its source policy.

    Raises:
        StartError: it is not valid.
    """
    directory = settings.secret_mount_path
    try:
        return Tenancy(
            CurrentTenants(
                Path(settings.tenants_file),
                lambda read: keys.payload_secrets(directory, read),
                policy,
                settings.buildkit_url,
            ),
            settings,
            own,
            policy,
        )
    except (TenantsError, keys.KeyFileError) as error:
        raise StartError(f"tenants_file cannot be used: {error}") from error
