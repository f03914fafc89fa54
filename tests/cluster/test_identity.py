"""Tokens of service accounts, which a real API server signs, prove tenants."""

from typing import Any, Final

import pytest
import yaml

from tests.cluster.cluster import DOMAIN
from tests.cluster.openfaas import URL, OpenFaaS

pytestmark = pytest.mark.timeout(600)

AUDIENCE: Final = "function-builder"
TENANTS: Final = ("acme", "globex")
_FILES: Final = "/var/run/issuer"

VALUES: dict[str, Any] = {
    "tenants": {"secret": "tenants"},
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
}


def tenant(namespace: str) -> dict[str, Any]:
    """A tenant of all service accounts of a namespace."""
    trust = {
        "issuer": f"https://kubernetes.default.svc.{DOMAIN}",
        "jwks_uri": "https://kubernetes.default.svc/openid/v1/jwks",
        "ca_file": f"{_FILES}/ca.crt",
        "token_file": f"{_FILES}/token",
        "audience": AUDIENCE,
        "claims": {"kubernetes.io": {"namespace": namespace}},
    }
    return {"oidc": [trust]}


async def token(openfaas: OpenFaaS, namespace: str, audience: str = AUDIENCE) -> str:
    """A token of the namespace's default service account."""
    create = ("create", "token", "default", f"--namespace={namespace}", f"--audience={audience}")
    return (await openfaas.cluster.kubectl(*create)).strip()


async def test_a_namespaces_service_accounts_prove_its_tenant(openfaas: OpenFaaS) -> None:
    for name in (*TENANTS, "stranger"):
        await openfaas.cluster.kubectl("create", "namespace", name)
        wait = ("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
        await openfaas.cluster.kubectl(*wait, f"--namespace={name}")
    document = {"tenants": {name: tenant(name) for name in TENANTS}}
    await openfaas.secret("tenants", {"tenants.yaml": yaml.safe_dump(document)})
    acme, globex, stranger = [await token(openfaas, name) for name in (*TENANTS, "stranger")]
    other = await token(openfaas, "acme", "another")
    async with openfaas.installed(values=VALUES):
        sent = ("acme", acme, "globex", globex, "globex", acme, "acme", stranger, "acme", other)
        # 400: the token is right, and the body is not a tar, or it is another tenant's token.
        assert await openfaas.client("bearers", URL, *sent) == [
            [400, False],
            [400, False],
            [400, True],
            [401, False],
            [401, False],
        ]
