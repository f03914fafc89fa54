"""Two tenants, on one BuildKit or on one each."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from function_builder.engine import BuildKitConfig, BuildKitDaemon
from tests.adversarial.tenants.tenant import Tenant, tenant, tenants_of_one_builder
from tests.support.registries import htpasswd, running_registry


@dataclass(frozen=True, slots=True)
class Tenants:
    """Two of them.

    Attributes:
        apart: whether each has a BuildKit of its own (`buildkit_url` of a tenant).
        public: `host:port` of a registry that asks for no credentials.
    """

    ann: Tenant
    bob: Tenant
    apart: bool
    public: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registries(registry: str, tmp_path_factory) -> AsyncIterator[dict[str, str]]:
    """The `host:port` of a registry for each user, which knows no other user."""
    async with AsyncExitStack() as stack:
        addresses = {}
        for name in ("ann", "bob"):
            root: Path = tmp_path_factory.mktemp(f"registry-{name}")
            own = running_registry(root, auth=htpasswd(root, name))
            addresses[name] = await stack.enter_async_context(own)
        yield addresses


@asynccontextmanager
async def running_tenants(
    root: Path, engine_root: Path, registry: str, registries: dict[str, str], *, apart: bool
) -> AsyncIterator[Tenants]:
    config = BuildKitConfig(
        mirrors={"docker.io": [registry]}, plain_http=[registry, *registries.values()]
    )
    async with AsyncExitStack() as stack:
        addresses = {}
        for name in ("ann", "bob") if apart else ("both",):
            state = engine_root / f"bk-{name}"
            daemon = BuildKitDaemon(state, config=config, log=state.with_suffix(".log"))
            addresses[name] = (await stack.enter_async_context(daemon)).address
        if apart:
            absent = f"unix://{root}/absent.sock"
            ann, bob = await stack.enter_async_context(
                tenants_of_one_builder(root / "t", absent, registries, addresses)
            )
        else:
            ann, bob = [
                await stack.enter_async_context(
                    tenant(root / name, name, addresses["both"], registries[name])
                )
                for name in ("ann", "bob")
            ]
        yield Tenants(ann, bob, apart, registry)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def together(engine_root, registry, registries, tmp_path_factory) -> AsyncIterator[Tenants]:
    """Two tenants on one BuildKit."""
    root = tmp_path_factory.mktemp("together")
    async with running_tenants(root, engine_root, registry, registries, apart=False) as tenants:
        yield tenants


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def apart(engine_root, registry, registries, tmp_path_factory) -> AsyncIterator[Tenants]:
    """Two tenants of one builder with a BuildKit each; there is none for the others."""
    root = tmp_path_factory.mktemp("apart")
    async with running_tenants(root, engine_root, registry, registries, apart=True) as tenants:
        yield tenants


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_builder(
    engine_root, registry, registries, tmp_path_factory
) -> AsyncIterator[Tenants]:
    """Two tenants of one builder."""
    root = tmp_path_factory.mktemp("one-builder")
    config = BuildKitConfig(
        mirrors={"docker.io": [registry]}, plain_http=[registry, *registries.values()]
    )
    state = engine_root / "bk-one-builder"
    async with (
        BuildKitDaemon(state, config=config, log=state.with_suffix(".log")) as daemon,
        tenants_of_one_builder(root / "t", daemon.address, registries) as (ann, bob),
    ):
        yield Tenants(ann, bob, apart=False, public=registry)


@pytest.fixture(params=["together", "one_builder"])
def neighbors(request) -> Tenants:
    """Two tenants on one BuildKit, with a builder each or with one for both."""
    found: Tenants = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["together", "apart"])
def tenants(request) -> Tenants:
    """Either."""
    found: Tenants = request.getfixturevalue(request.param)
    return found
