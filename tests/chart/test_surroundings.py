"""What stands around the pods: the network's policy, disruptions, scaling, monitoring, the test."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml

from tests.chart.api_server import api_server
from tests.chart.cases import CASES, OUTSIDE, POOL, PRO_BUILDER, QUEUE_CLUSTER
from tests.chart.kubernetes import faults
from tests.chart.monitoring.queries import DASHBOARD, RULES
from tests.chart.render import CHART, Resource, containers, helm, objects, refused, render

METADATA = (
    *("169.254.169.254", "100.100.100.200", "168.63.129.16"),
    *("fd00:ec2::254", "fd20:ce::254"),
)
GKE_METADATA = "169.254.169.252"
"""Calico on GKE meets packets that were addressed to METADATA with this one, at 987 and 988."""


def policy(values: dict[str, Any], name: str = "pro-builder") -> dict[str, Any]:
    found = render(values).one("NetworkPolicy", name)["spec"]
    assert isinstance(found, dict)
    return found


def excepted(rules: list[dict[str, Any]]) -> set[str]:
    peers = [peer for rule in rules for peer in rule.get("to", [])]
    return {cidr for peer in peers for cidr in peer.get("ipBlock", {}).get("except", [])}


@pytest.mark.parametrize("name", ["pro-builder", "pro-builder-buildkit"])
def test_the_clouds_metadata_is_out_of_reach(name):
    cidrs = [ip_network(cidr) for cidr in excepted(policy(POOL, name)["egress"])]
    for address in map(ip_address, (*METADATA, GKE_METADATA)):
        assert any(address in cidr for cidr in cidrs), address
    assert sum(cidr.num_addresses for cidr in cidrs) == 8  # and next to nothing else
    opened = {**POOL, "networkPolicy": {"egressExcept": []}}
    assert excepted(policy(opened, name)["egress"]) == set()


def test_only_builders_speak_to_a_pool():
    release = render(POOL)
    (rule,) = policy(POOL, "pro-builder-buildkit")["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["buildkit"]
    (peer,) = rule["from"]
    # No namespaceSelector: only this namespace's.
    assert peer.keys() == {"podSelector"}
    assert matches(peer["podSelector"], release.builders)
    assert not matches(peer["podSelector"], release.one("Pod"))


def matches(selector: dict[str, Any], pod: Resource) -> bool:
    return bool(selector["matchLabels"].items() <= pod["metadata"]["labels"].items())


def test_who_may_build_can_be_said_and_helm_test_always_may():
    values = CASES["everything"]
    http, metrics = policy(values)["ingress"]
    test, *others = http["from"]
    assert matches(test["podSelector"], render(values).one("Pod"))
    assert others == values["networkPolicy"]["from"]
    assert metrics["from"] == values["networkPolicy"]["metricsFrom"]
    assert all("from" not in rule for rule in policy({})["ingress"])


@pytest.mark.parametrize("values", [{}, POOL])
def test_all_that_leaves_can_be_said(values):
    rules = [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]
    said = {**values, "networkPolicy": {"egress": rules}}
    egress = policy(said)["egress"]
    assert egress[-1:] == rules
    release = render(said)
    if values:
        to_pool, _ = egress
        (peer,) = to_pool["to"]
        pool = release.one("StatefulSet", "pro-builder-buildkit")["spec"]["template"]
        assert matches(peer["podSelector"], pool)
        assert policy(said, "pro-builder-buildkit")["egress"] == rules
    else:
        assert egress == rules


@pytest.mark.parametrize("values", [{}, POOL, PRO_BUILDER, QUEUE_CLUSTER])
def test_one_pod_at_a_time_may_be_disrupted(values):
    release = render(values)
    budgets = release.all("PodDisruptionBudget")
    assert len(budgets) == len(release.workloads)
    for workload in release.workloads:
        budget = release.one("PodDisruptionBudget", workload["metadata"]["name"])
        # Never `minAvailable`: with one replica a node could not be drained.
        assert budget["spec"]["maxUnavailable"] == 1
        # A full builder is unready: it would stop a node's drain until it is less busy.
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert matches(budget["spec"]["selector"], workload["spec"]["template"])


@pytest.mark.parametrize(
    ("values", "kind"),
    [({}, "StatefulSet"), (POOL, "Deployment"), (CASES["emptyDir"], "Deployment")],
)
def test_the_autoscaler_counts_slots_in_use(values, kind):
    scaled = {
        **values,
        "proBuilder": {"maxInflight": 4},
        "autoscaling": {"enabled": True, "minReplicas": 3, "targetSlotsPercentage": 50},
    }
    release = render(scaled)
    spec = release.one("HorizontalPodAutoscaler")["spec"]
    target = release.one(kind, "pro-builder")
    assert (spec["scaleTargetRef"]["kind"], spec["minReplicas"]) == (kind, 3)
    # Else each upgrade would undo what the autoscaler did.
    assert "replicas" not in target["spec"]
    (metric,) = spec["metrics"]
    assert metric["pods"]["metric"]["name"] == "function_builder_slots_taken"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "2000m"}


@pytest.mark.parametrize(("running", "kept"), [(7, 7), (1, 1), (0, None)])
def test_switching_the_autoscaler_on_keeps_the_builders_that_run(tmp_path, running, kept):
    """A release that had `replicas` and has it no more would be scaled to one first."""
    values = {"proBuilder": {"maxInflight": 4}, "autoscaling": {"enabled": True, "minReplicas": 2}}
    with api_server({"spec": {"replicas": running}}) as kubeconfig:
        config = tmp_path / "kubeconfig"
        config.write_text(yaml.safe_dump(kubeconfig))
        result = helm(
            "template",
            "pro-builder",
            str(CHART),
            "--namespace=openfaas",
            "--is-upgrade",
            "--dry-run=server",
            "--disable-openapi-validation",
            f"--kubeconfig={config}",
            values=values,
        )
    assert result.returncode == 0, result.stderr
    rendered = objects(result.stdout)
    assert rendered.one("StatefulSet")["spec"].get("replicas") == kept


def test_a_service_monitor_finds_the_metrics_of_builders_that_are_not_ready():
    release = render(CASES["everything"])
    monitor = release.one("ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    found = [
        service
        for service in release.all("Service")
        if matches(monitor["spec"]["selector"], service)
        and endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    ]
    (service,) = found
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= release.builders["metadata"]["labels"].items()
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_operators_objects_are_made_for_who_has_the_operators():
    kinds = {resource["kind"] for resource in render().resources}
    assert not {"ServiceMonitor", "PrometheusRule", "Certificate"} & kinds


def test_the_alerts_are_those_of_the_file():
    rule = render(CASES["everything"]).one("PrometheusRule")
    assert rule["spec"] == yaml.safe_load(RULES.read_text())


def test_the_dashboard_is_that_of_the_file():
    config = render(CASES["everything"]).one("ConfigMap", "pro-builder-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    (data,) = config["data"].values()
    assert data.strip() == DASHBOARD.read_text().strip()


@pytest.mark.parametrize("case", ["defaults", "pool", "pro-builder", "user namespaces"])
def test_two_images_are_all_that_is_pulled(case):
    """As docs/registries.md says."""
    release = render(CASES[case])
    images = {each["image"] for pod in release.pods for each in containers(pod)}
    ours, theirs = (release.container(name)["image"] for name in ("pro-builder", "buildkit"))
    assert images == {ours, theirs}


@pytest.mark.parametrize("case", ["defaults", "everything", "bare"])
def test_helm_test_builds_an_image_through_the_service(case):
    release = render(CASES[case])
    pod = release.one("Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    assert container["image"] == release.container("pro-builder")["image"]
    command = [*container["command"], *container["args"]]
    assert command[:2] == ["function-builder", "build"]
    assert "--url=http://pro-builder.openfaas:8080" in command
    signed = any(flag.startswith("--payload-secret=") for flag in command)
    assert signed is (case != "bare")
    pushed = "--image=registry.internal/test:1" in command
    assert pushed is (case == "everything")
    assert ("--skip-push" in command) is not pushed


def test_clients_outside_reach_the_service_and_not_the_metrics():
    release = render(OUTSIDE)
    service = release.one("Service", "pro-builder")
    ingress = release.one("Ingress")["spec"]
    assert ingress["ingressClassName"] == "nginx"
    assert ingress["tls"] == [
        {"hosts": ["builder.example.com"], "secretName": "builder-certificate"}
    ]
    (rule,) = ingress["rules"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "pro-builder", "port": {"name": "http"}}
    assert [port["name"] for port in service["spec"]["ports"]] == ["http"]
    (rule,) = release.one("HTTPRoute")["spec"]["rules"]
    assert rule["backendRefs"] == [{"name": "pro-builder", "port": 8080}]
    # By default a gateway ends a request after some seconds.
    assert rule["timeouts"] == {"request": "0s"}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"ingress": {"enabled": True}}, "ingress: host"),
        ({"gateway": {"enabled": True}}, "gateway: parentRefs"),
        ({"gateway": {"timeouts": {"request": "soon"}}}, "request"),
    ],
)
def test_an_entrance_that_leads_nowhere_is_refused(values, named):
    assert named in refused(values)


@pytest.mark.parametrize("path", sorted(CHART.glob("ci/*.yaml")), ids=lambda path: path.stem)
def test_the_values_of_ci_are_well_formed(path):
    values = yaml.safe_load(path.read_text())
    lint = helm("lint", "--strict", "--quiet", str(CHART), values=values)
    assert lint.returncode == 0, lint.stdout + lint.stderr
    for resource in render(values).resources:
        assert not faults("1.34", resource)


def test_artifact_hub_is_told_of_the_images_that_are_the_defaults():
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    told = {each["image"] for each in yaml.safe_load(annotations["artifacthub.io/images"])}
    queue = {"queue": {"enabled": True, "nats": {"enabled": True}, "storeUrl": "s3://builds"}}
    used = {each["image"] for pod in render(queue).pods for each in containers(pod)}
    assert told == used


def notes(values: dict[str, Any]) -> str:
    # `helm template` leaves the notes out; a dry run on the client shows them.
    result = helm(
        "install",
        "pro-builder",
        str(CHART),
        "--namespace=openfaas",
        "--dry-run=client",
        "--hide-secret",
        values=values,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split("NOTES:")[1]


def test_the_notes_lead_to_a_first_build():
    said = notes({})
    for step in (
        "kubectl create secret generic payload-secret -n openfaas",
        "kubectl create secret generic registry-secret -n openfaas",
        "kubectl rollout status -n openfaas statefulset/pro-builder",
        "helm test pro-builder -n openfaas",
        "faas-cli publish --remote-builder http://127.0.0.1:8080",
    ):
        assert step in said
    assert "WARNING" not in said
    # Where the builder's image comes from, unless it is told.
    assert "--set proBuilder.image=" in said
    assert "proBuilder.image" not in notes({"proBuilder": {"image": "registry.internal/ours:1"}})


def test_the_notes_of_a_pool_tell_of_its_certificates_unless_cert_manager_makes_them():
    said = notes({"topology": "pool"})
    assert "function-builder certs certs --host pro-builder-buildkit" in said
    for secret in ("buildkit-daemon-certs", "buildkit-client-certs"):
        assert f"kubectl create secret generic {secret} -n openfaas" in said
        assert secret not in notes({})
    issued = {"tls": {"certManager": {"enabled": True, "issuerRef": {"name": "ours"}}}}
    assert "certs" not in notes({"topology": "pool", **issued})


def test_the_notes_warn_of_what_is_dangerous():
    assert "BuildKit is privileged" in notes(PRO_BUILDER)
    assert "names pro-builder's image (ghcr.io/openfaasltd/pro-builder:0.5.5)" in notes(PRO_BUILDER)
    assert "can build and push with your credentials" in notes({"disableHmac": True})
    of_tenants = {"tenants": {"secret": "tenants"}}
    assert "names and numbers of all tenants" in notes(of_tenants)
    assert "WARNING" not in notes({**of_tenants, "settings": {"run_proxy": True}})
    assert "in the release's history" in notes({"tenants": {"files": {"tenants.yaml": "x"}}})
    open_pool = {"topology": "external", "buildkit": {"url": "dns://buildkits.builds:1234"}}
    assert "without TLS" in notes({**open_pool, "tls": {"clientSecret": ""}})
    assert "without TLS" not in notes(open_pool)
