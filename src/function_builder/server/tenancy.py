"""The tenants of `tenants_file`, for requests and for the queue.

Importing this imports YAML's reader, so only a builder with `tenants_file` does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import structlog
from starlette.requests import Request

from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import Refusal
from function_builder.contract.reads import token_tenant
from function_builder.contract.tenancy import TENANT_HEADER, Scope
from function_builder.errors import StartError
from function_builder.queue.webhooks import CallbackKeys
from function_builder.server import keys
from function_builder.server.claims import Claim, bearer
from function_builder.server.prometheus import Metrics
from function_builder.settings import Settings
from function_builder.tenants.current import CurrentTenants
from function_builder.tenants.document import TenantsError
from function_builder.tenants.tenant import Tenant, Tenants

LOOK_SECONDS: Final = 2.0
"""Between two looks at the files."""

_NOT_ACCEPTED: Final = (
    "the bearer token is not accepted: it is unknown here, or has expired or was revoked"
)

_log = structlog.get_logger(__name__)


class Tenancy:
    """Whose a request is, by its bearer token, its `X-Build-Tenant`, or its host.

    Args:
        current: the tenants in force.
    """

    def __init__(self, current: CurrentTenants) -> None:
        self._current = current

    @property
    def stale(self) -> bool:
        """Whether the file has changed, and is wrong."""
        return self._current.stale

    @property
    def count(self) -> int:
        """How many tenants there are."""
        return len(self._tenants.by_name)

    async def claim(self, request: Request) -> Claim:
        """The tenant that a request claims to be.

        A tenant that does not exist has secrets too, which sign nothing: the request is treated as
        one with a wrong signature, to its end.

        Raises:
            Refusal: 400, 401.
        """
        tenants, wanted = self._tenants, request.headers.get(TENANT_HEADER)
        token = bearer(request)
        named = token_tenant(token) if token else None
        if token and named is None:
            found = tenants.of_token(token)
            if found is None:
                raise Refusal(401, _NOT_ACCEPTED)
            tenant = found[0]
            if wanted not in (None, tenant.name):
                raise Refusal(400, f"{TENANT_HEADER} is not the tenant of the bearer token")
            return self._claim(tenants, tenant.name, tenant, found[1].scopes)
        name = named or wanted
        if name is not None:
            return self._claim(tenants, name, tenants.named(name))
        tenant = tenants.at_host(request.headers.get("host", "")) or tenants.default
        return self._claim(tenants, tenant.name, tenant)

    def named(self, tenant: str) -> Claim | None:
        """The tenant of a build that was accepted before; None if it is there no longer."""
        tenants = self._tenants
        found = tenants.named(tenant)
        return None if found is None else self._claim(tenants, tenant, found)

    def callback_keys(self, tenant: str) -> CallbackKeys | None:
        """What signs the callbacks of a tenant other than `default`; None: it gets none."""
        found = self._tenants.named(tenant)
        if found is None or not found.webhook_keys:
            return None
        return CallbackKeys(list(found.webhook_keys), next(iter(found.secrets), None))

    def token_secret(self, tenant: str) -> bytes | None:
        """The secret that makes tokens of the tenant's builds; None: it has none."""
        found = self._tenants.named(tenant)
        return None if found is None else next(iter(found.secrets), None)

    async def watch(self) -> None:
        """Read the file again whenever it has changed."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Read the file again if it has changed; one that is wrong is logged, and has no effect."""
        try:
            if await asyncio.to_thread(self._current.refresh):
                _log.info("tenants_file was read again", tenants=self.count)
        except (TenantsError, keys.KeyFileError) as error:
            _log.error("tenants_file is wrong: the tenants of before stay in force", why=str(error))

    @property
    def _tenants(self) -> Tenants:
        return self._current.tenants

    def _claim(
        self,
        tenants: Tenants,
        name: str,
        tenant: Tenant | None,
        scopes: frozenset[Scope] | None = None,
    ) -> Claim:
        own = tenants.default.secrets
        if name == DEFAULT_TENANT:
            domains = [keys.trust_domain(secret) for secret in own]
        else:
            domains = [keys.tenant_domain(secret, name) for secret in own]
        return Claim(tenant=name, secrets=tenants.signers(tenant), domains=domains, scopes=scopes)


def read_tenancy(settings: Settings) -> Tenancy:
    """Read `tenants_file`.

    Raises:
        StartError: it is wrong.
    """
    directory = settings.secret_mount_path
    try:
        return Tenancy(
            CurrentTenants(
                Path(settings.tenants_file), lambda read: keys.payload_secrets(directory, read)
            )
        )
    except (TenantsError, keys.KeyFileError) as error:
        raise StartError(f"tenants_file cannot be used: {error}") from error


@contextlib.asynccontextmanager
async def watching(tenancy: Tenancy, metrics: Metrics) -> AsyncIterator[None]:
    """Have the file watched, and its state among the metrics."""
    metrics.tenants.set_function(lambda: tenancy.count)
    metrics.tenants_stale.set_function(lambda: float(tenancy.stale))
    task = asyncio.create_task(tenancy.watch(), name="tenants_file")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
