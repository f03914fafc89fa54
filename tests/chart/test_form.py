"""helm and Kubernetes take what the chart makes of its values, whatever they are."""

import copy

import pytest

from tests.chart.cases import CASES
from tests.chart.kubernetes import VERSIONS, faults, is_kubernetes
from tests.chart.render import CHART, helm, render

by_case = pytest.mark.parametrize("case", sorted(CASES))


@by_case
def test_helm_finds_nothing_to_say(case):
    result = helm("lint", "--strict", "--quiet", str(CHART), values=CASES[case])
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("case", "version"),
    [
        (case, version)
        for case in sorted(CASES)
        for version in VERSIONS
        # Refused by older ones.
        if "user namespaces" not in case or version > "1.32"
    ],
)
def test_each_object_has_the_form_that_kubernetes_wants(case, version):
    resources = render(CASES[case], kubernetes=version).resources
    assert sum(map(is_kubernetes, resources)) > 3
    for resource in resources:
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
