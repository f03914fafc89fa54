"""helm and Kubernetes take what the chart makes of its values, whatever they are."""

import copy

import pytest

from tests.chart.cases import CASES
from tests.chart.kubernetes import VERSIONS, faults
from tests.chart.render import CHART, Resource, helm, render

by_case = pytest.mark.parametrize("case", sorted(CASES))


def is_kubernetes(resource: Resource) -> bool:
    """Not of an operator that the cluster may lack."""
    group = resource["apiVersion"].rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


@by_case
def test_helm_finds_nothing_to_say(case):
    result = helm("lint", "--strict", "--quiet", str(CHART), values=CASES[case])
    assert result.returncode == 0, result.stdout + result.stderr


@by_case
@pytest.mark.parametrize("version", VERSIONS)
def test_each_object_has_the_form_that_kubernetes_wants(case, version):
    resources = render(CASES[case], kubernetes=version).resources
    checked = [resource for resource in resources if is_kubernetes(resource)]
    assert len(checked) > 3
    for resource in checked:
        assert not faults(version, resource), (resource["kind"], resource["metadata"]["name"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda spec: spec["template"]["spec"]["containers"][0].update(restartPolices="Always"),
        lambda spec: spec["template"]["spec"].update(terminationGracePeriodSeconds="5"),
        lambda spec: spec["template"]["spec"]["volumes"][0].pop("name"),
        lambda spec: spec.pop("selector"),
    ],
)
def test_a_wrong_form_would_be_seen(damage):
    (workload,) = copy.deepcopy(render().all("StatefulSet"))
    damage(workload["spec"])
    assert faults("1.34", workload)


@by_case
def test_no_two_objects_have_one_name(case):
    resources = render(CASES[case]).resources
    names = [(each["kind"], each["metadata"]["name"]) for each in resources]
    assert len(set(names)) == len(names)


@by_case
def test_all_is_in_the_releases_namespace(case):
    namespaces = {each["metadata"]["namespace"] for each in render(CASES[case]).resources}
    assert namespaces == {"openfaas"}
