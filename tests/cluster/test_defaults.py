"""The chart's own defaults: installed, tested by `helm test`, uninstalled."""

from typing import Any

import pytest

from tests.cluster.cluster import REGISTRY
from tests.cluster.openfaas import OpenFaaS
from tests.support.images import pull

pytestmark = pytest.mark.timeout(600)

LEFT_BY_HELM_TEST = {"pod/pro-builder-test", "configmap/pro-builder-test"}
"""Hooks are no part of a release: helm leaves them, so that `helm test --logs` can be read."""


async def objects(openfaas: OpenFaaS) -> set[str]:
    """All that is in the namespace, but for what Kubernetes tells of it."""
    kinds = await openfaas.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name")
    told = {"events", "events.events.k8s.io", "pods.metrics.k8s.io"}
    names = await openfaas.kubectl("get", ",".join(set(kinds.split()) - told), "--output=name")
    return set(names.split())


async def test_what_is_installed_builds_and_is_gone_when_it_is_uninstalled(openfaas):
    before = await objects(openfaas)
    image = f"{REGISTRY}/helm/test:1"
    async with openfaas.installed(values={"test": {"baseImage": "busybox", "image": image}}):
        pod = (await openfaas.pods())[0]
        assert await _buildkit(openfaas, pod) == [
            "Uid 1000 1000 1000 1000",
            "Gid 1000 1000 1000 1000",
            "CapEff 0000000000000000",
            # SETGID and SETUID, of which newuidmap and newgidmap take one each.
            "CapBnd 00000000000000c0",
            "Read-only file system",
        ]
        declared = {c["name"]: c["securityContext"] for c in pod["spec"]["initContainers"]}
        assert declared["buildkit"]["appArmorProfile"] == {"type": "Unconfined"}

        said = await openfaas.helm("test", "--logs")
        assert "RUN true" in said
        assert f"{image}@{pull(REGISTRY, 'helm/test', '1').digest}" in said

        await openfaas.uninstall()
        assert await objects(openfaas) - before == LEFT_BY_HELM_TEST
        await openfaas.kubectl("delete", *LEFT_BY_HELM_TEST)
        volumes = (await openfaas.cluster.get("pv"))["items"]
        assert [v["status"]["phase"] for v in volumes].count("Released") == 1
        caches = openfaas.cluster.root.glob("volumes/*/state/runc-overlayfs")
        assert len(list(caches)) == 1


async def _buildkit(openfaas: OpenFaaS, pod: Any) -> list[str]:
    """Who its first process is, and what comes of writing beside its volumes."""
    look = (
        "grep -E '^(Uid|Gid|CapEff|CapBnd):' /proc/1/status | tr -s ':\\t' ' '; "
        "touch /new 2>&1 | sed 's/.*: //'"
    )
    command = ("exec", pod["metadata"]["name"], "--container=buildkit", "--", "sh", "-c", look)
    return [line.strip() for line in (await openfaas.kubectl(*command)).splitlines()]
