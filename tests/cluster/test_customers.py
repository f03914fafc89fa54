"""The guide «Run it for customers», from nothing to two tenants, each with faas-cli and tokens."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
import yaml

from tests.cluster.cluster import DOMAIN, REGISTRY
from tests.cluster.images import BUILDER, FAAS_CLI
from tests.cluster.openfaas import RELEASE, URL, OpenFaaS, Tell
from tests.support.customers_guide import blocks, run_block

pytestmark = pytest.mark.timeout(600)

AUDIENCE: Final = "function-builder"
TENANTS: Final = ("acme", "globex")
ACMES_POOL: Final = f"{RELEASE}-buildkit-acme"
DOMAIN_OF_HOSTS: Final = "builder.example.com"
_FILES: Final = "/var/run/issuer"

HERE: dict[str, Any] = {
    "tenants": {"pools": {"acme": {"replicas": 1}}},
    "buildkit": {"cache": {"type": "emptyDir"}},
    "proBuilder": {"extraVolumeMounts": [{"name": "issuer", "mountPath": _FILES}]},
    "extraVolumes": [
        {
            "name": "issuer",
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                    {
                        "configMap": {
                            "name": "kube-root-ca.crt",
                            "items": [{"key": "ca.crt", "path": "ca.crt"}],
                        }
                    },
                ]
            },
        }
    ],
    "queue": {
        "nats": {
            "image": f"ghcr.io/{BUILDER}",
            "size": "5Gi",
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        },
        # There is no bucket.
        "storeUrl": "",
        "storeSecret": "",
        "storeVolume": {"enabled": True, "size": "5Gi", "accessModes": ["ReadWriteOnce"]},
    },
}
"""What the guide's values lack for this cluster, the tokens of its service accounts, and a pool."""

PROJECT: Final = """
mkdir -p /tmp/project/template/shell/function /tmp/project/hello && cd /tmp/project
printf 'language: shell\\nfprocess: cat /said\\n' >template/shell/template.yml
printf 'FROM busybox\\nCOPY . .\\nRUN sh function/handler.sh >/said\\n' >template/shell/Dockerfile
echo 'echo hello' >hello/handler.sh
"""


def own_lines(name: str) -> dict[str, Any]:
    """What the operator adds: where a tenant may push, tokens of a namespace, acme's BuildKits."""
    trust = {
        "issuer": f"https://kubernetes.default.svc.{DOMAIN}",
        "jwks_uri": "https://kubernetes.default.svc/openid/v1/jwks",
        "ca_file": f"{_FILES}/ca.crt",
        "token_file": f"{_FILES}/token",
        "audience": AUDIENCE,
        "claims": {"kubernetes.io": {"namespace": name}},
    }
    lines = {"push": [f"{REGISTRY}/{name}/**"], "oidc": [trust]}
    return lines | ({"buildkit_url": f"dns://{ACMES_POOL}:1234"} if name == "acme" else {})


def customer(name: str, address: str) -> dict[str, Any]:
    """A customer's pod with faas-cli, which finds the builder under the customers' hosts."""
    hosts = [f"{each}.{DOMAIN_OF_HOSTS}" for each in TENANTS]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "cli", "namespace": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "hostAliases": [{"ip": address, "hostnames": hosts}],
            "containers": [
                {
                    "name": "cli",
                    "image": f"{REGISTRY}/{FAAS_CLI}",
                    "command": ["sleep", "2147483647"],
                }
            ],
        },
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def guide(
    openfaas: OpenFaaS, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Path]:
    """The guide's steps, one after the other; the operator's directory."""
    directory: Path = tmp_path_factory.mktemp("operator")
    for name in (*TENANTS, "stranger"):
        await openfaas.cluster.kubectl("create", "namespace", name)
        wait = ("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
        await openfaas.cluster.kubectl(*wait, f"--namespace={name}")
    await openfaas.kubectl("delete", "secret/nats-secret", "--ignore-not-found")
    run_block(0, directory)
    file = directory / "tenants" / "tenants.yaml"
    document = yaml.safe_load(file.read_text())
    for name in TENANTS:
        document["tenants"][name] |= own_lines(name)
    file.write_text(yaml.safe_dump(document))
    run_block(1, directory, openfaas.cluster.environment)
    await openfaas.certificates(ACMES_POOL)
    values = directory / "values.yaml"
    values.write_text(blocks("yaml")[0])
    async with openfaas.installed(values, values=HERE):
        address = (await openfaas.get(f"service/{RELEASE}"))["spec"]["clusterIP"]
        for name in TENANTS:
            pod = yaml.safe_dump(customer(name, address))
            await openfaas.cluster.kubectl("apply", "--filename=-", stdin=pod)
        for name in TENANTS:
            ready = ("wait", "--for=condition=Ready", "pod/cli", "--timeout=120s")
            await openfaas.cluster.kubectl(*ready, f"--namespace={name}")
        yield directory
        claims = (f"pvc/data-{RELEASE}-nats-0", f"pvc/{RELEASE}-store")
        await openfaas.kubectl("delete", *claims, "--wait=false")


async def token(openfaas: OpenFaaS, namespace: str, audience: str = AUDIENCE) -> str:
    """A token of the namespace's default service account."""
    create = ("create", "token", "default", f"--namespace={namespace}", f"--audience={audience}")
    return (await openfaas.cluster.kubectl(*create)).strip()


async def test_a_namespaces_service_accounts_prove_its_tenant(openfaas: OpenFaaS) -> None:
    acme, globex, stranger = [await token(openfaas, name) for name in (*TENANTS, "stranger")]
    other = await token(openfaas, "acme", "another")
    sent = ("acme", acme, "globex", globex, "globex", acme, "acme", stranger, "acme", other)
    # 400: the token is right, and the body is not a tar, or it is another tenant's token.
    assert await openfaas.client("bearers", URL, *sent) == [
        [400, False],
        [400, False],
        [400, True],
        [401, False],
        [401, False],
    ]


async def test_two_tenants_build_with_faas_cli_by_their_urls_alone(
    openfaas: OpenFaaS, guide: Path, tell: Tell
) -> None:
    """As `tenants add` prints the command, but without TLS. Each pushes where it may."""
    transcript: list[tuple[str]] = []

    async def publish(program: str, by: str, tenant: str, repository: str, secret: str) -> str:
        text = (guide / "tenants" / f"{secret}.secret").read_text().strip()
        image = f"{REGISTRY}/{repository}/hello:1"
        command = (
            f"{program} publish -f stack.yaml --remote-builder http://{tenant}.{DOMAIN_OF_HOSTS}:8080/build"
            f" --payload-secret {secret}.secret"
        )
        stack = "version: 1.0\nprovider: {name: openfaas}\nfunctions:\n"
        stack += f"  hello: {{lang: shell, handler: ./hello, image: {image}}}\n"
        script = f"{PROJECT}\ncat >stack.yaml <<'END'\n{stack}END\n"
        script += f"echo '{text}' >{secret}.secret\n{command} 2>&1 || echo exit code $?\n"
        run = ("exec", "cli", f"--namespace={by}", "--", "sh", "-ec", script)
        said = await openfaas.cluster.kubectl(*run)
        # Without the builds' own lines.
        lines = [line for line in said.splitlines() if not line.startswith(("v: ", "s: "))]
        transcript.extend((line,) for line in [f"{by}$ {command}", *lines])
        return said

    for program in ("faas-cli-0.17", "faas-cli"):
        for name in TENANTS:
            said = await publish(program, name, name, name, name)
            pushed = f"success building and pushing image: {REGISTRY}/{name}/hello:1"
            assert pushed in said, said + await openfaas.description()
    said = await publish("faas-cli", "acme", "globex", "globex", "acme")
    assert "responded with status code 401" in said
    said = await publish("faas-cli", "acme", "acme", "globex", "acme")
    assert "responded with status code 403" in said

    secret = openfaas.payload_secret.strip()
    async with asyncio.timeout(60):
        while await openfaas.client("usage", URL, secret) != {"acme": 2, "globex": 2}:
            await asyncio.sleep(0.5)
    tell("faas-cli of two tenants", transcript)
