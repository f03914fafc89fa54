"""Two tenants of one builder, whose users have faas-cli: it sends no header of the tenant's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from function_builder.client import AsyncClient, BuildConfig, Refused
from tests.integration.clients.programs import run
from tests.integration.clients.test_faas_cli import NEW, OLD, add_function, project, said
from tests.support.builders import RunningBuilder, running_builder

__all__ = ["project"]

pytestmark = pytest.mark.integration

HOSTS = {"acme": "localhost", "globex": "127.0.0.1"}
"""Both are the builder's address; with DNS, they would be names of one domain."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def provider(buildkitd: str, tmp_path_factory) -> AsyncIterator[RunningBuilder]:
    """A builder with two tenants."""
    root: Path = tmp_path_factory.mktemp("provider")
    lines = ["tenants:"]
    for name, host in HOSTS.items():
        (root / name).write_text(f"the payload secret of {name}")
        lines.append(f"  {name}: {{payload_secret_file: {name}, hosts: {host}}}")
    (root / "tenants.yaml").write_text("\n".join(lines))
    tenants = {"tenants_file": str(root / "tenants.yaml")}
    async with running_builder(root / "builder", buildkitd, **tenants) as builder:
        yield builder


def url(builder: RunningBuilder, tenant: str) -> str:
    return builder.url.replace("127.0.0.1", HOSTS[tenant])


def secret(builder: RunningBuilder, tenant: str) -> Path:
    return builder.secrets.parents[1] / tenant


@pytest.mark.parametrize("faas_cli", [OLD, NEW])
async def test_faas_cli_reaches_a_tenant_by_its_url_alone(faas_cli, provider, project, image):
    add_function(project, image, "one")
    codes = {}
    for tenant, owner in (("acme", "acme"), ("globex", "globex"), ("acme", "globex")):
        outcome = await run(
            (
                *(faas_cli, "publish", "-f", "stack.yaml"),
                *("--remote-builder", f"{url(provider, tenant)}/build"),
                *("--payload-secret", str(secret(provider, owner))),
            ),
            directory=project,
        )
        codes[tenant, owner] = outcome.code
    assert codes == {("acme", "acme"): 0, ("globex", "globex"): 0, ("acme", "globex"): 1}
    assert await asyncio.to_thread(said, image) == "hello one\n"


async def test_our_client_names_its_tenant(provider):
    files = {"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}
    owned = secret(provider, "acme").read_bytes()
    for tenant, status in (("acme", "success"), ("globex", "")):
        headers = {"X-Build-Tenant": tenant}
        async with AsyncClient(provider.url, payload_secret=owned, headers=headers) as client:
            build = client.build(files=files, config=BuildConfig(skip_push=True))
            if status:
                assert (await build).status.value == status
            else:
                with pytest.raises(Refused, match="absent or wrong"):
                    await build
