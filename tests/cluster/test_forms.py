"""A real API server takes every object of the chart, and judges its pods' rights."""

import copy
from typing import Any

import pytest
import yaml

from tests.chart.cases import CASES
from tests.chart.kubernetes import is_kubernetes
from tests.chart.render import Resource, render
from tests.cluster.commands import CommandFailed

FORMS = "forms"
RESTRICTED = "restricted"


async def make_namespace(cluster, name: str, **labels: str) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    pod_security = {f"pod-security.kubernetes.io/{mode}": level for mode, level in labels.items()}
    namespace["metadata"] = {"name": name, "labels": pod_security}
    await cluster.kubectl("apply", "--filename=-", stdin=yaml.safe_dump(namespace))


async def dry_run(cluster, namespace: str, resources: list[Resource]) -> str:
    """What the API server says of objects that it does not keep; unknown fields are errors."""
    moved = copy.deepcopy(resources)
    for resource in moved:
        resource["metadata"]["namespace"] = namespace
    said = await cluster.kubectl(
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "--filename=-",
        stdin=yaml.safe_dump_all(moved),
    )
    return str(said)


def here(values: dict[str, Any]) -> dict[str, Any]:
    """Values without what this cluster lacks: a second family of addresses, another runtime."""
    values = copy.deepcopy(values)
    values.pop("runtimeClassName", None)
    values.get("service", {}).pop("ipFamilies", None)
    return values


def as_pod(template: dict[str, Any], name: str) -> Resource:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": template["spec"],
    }


@pytest.mark.parametrize("case", sorted(CASES))
async def test_the_api_server_takes_each_object(cluster, case):
    await make_namespace(cluster, FORMS)
    resources = [each for each in render(here(CASES[case])).resources if is_kubernetes(each)]
    said = await dry_run(cluster, FORMS, resources)
    assert said.count("(server dry run)") == len(resources) > 3


async def test_builders_without_a_buildkit_in_their_pod_pass_pod_security_restricted(cluster):
    """As docs/kubernetes.md says."""
    await make_namespace(cluster, RESTRICTED, enforce="restricted")
    apart, beside = (render(CASES[case]).builders for case in ("pool", "emptyDir"))
    assert await dry_run(cluster, RESTRICTED, [as_pod(apart, "apart"), *render().all("Pod")])
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        await dry_run(cluster, RESTRICTED, [as_pod(beside, "beside")])
