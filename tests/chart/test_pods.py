"""Pods: their rights, the order of their containers, their ends, where they run."""

from typing import Any

import pytest

from function_builder.settings import Settings
from tests.chart.cases import CASES, EVERYTHING, POOL, PRO_BUILDER
from tests.chart.render import Release, containers, render

APPARMOR = "container.apparmor.security.beta.kubernetes.io/buildkit"
USERNS: dict[str, Any] = {"buildkit": {"hostUsers": False}}
PRIVILEGED: dict[str, Any] = {"buildkit": {"rootless": False}}

# What Kubernetes' Pod Security Standard `restricted` asks of a container, and a little more.
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}

by_case = pytest.mark.parametrize("case", sorted(CASES))


def buildkits(release: Release) -> list[dict[str, Any]]:
    return [each for pod in release.pods for each in containers(pod) if each["name"] == "buildkit"]


@by_case
def test_no_pod_is_given_a_token_of_the_cluster(case):
    for pod in render(CASES[case]).pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False


@by_case
def test_no_pod_shares_anything_with_its_node(case):
    for pod in render(CASES[case]).pods:
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & pod.keys()
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]


@by_case
def test_all_that_is_ours_runs_without_rights(case):
    release = render(CASES[case])
    ours = [
        container
        for pod in release.pods
        for container in containers(pod)
        if container["name"] not in ("buildkit", "cache")
    ]
    assert {each["name"] for each in ours} - {"nats"} == {"pro-builder", "build"}
    assert all(container["securityContext"] == RESTRICTED for container in ours)


@by_case
def test_whoever_readies_the_cache_has_no_rights_either(case):
    for pod in render(CASES[case]).pods:
        for container in containers(pod):
            if container["name"] == "cache":
                context = container["securityContext"]
                assert (
                    context.items()
                    >= {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    }.items()
                )
                assert context["runAsNonRoot"] is (context["runAsUser"] != 0)


@pytest.mark.parametrize("topology", ["sidecar", "pool"])
def test_rootless_has_what_rootlesskit_needs_and_no_more(topology):
    (buildkit,) = buildkits(render({"topology": topology}))
    assert buildkit["image"].endswith("-rootless")
    assert buildkit["securityContext"] == {
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "privileged": False,
        # newuidmap and newgidmap, which are set-uid.
        "allowPrivilegeEscalation": True,
        "capabilities": {"drop": ["ALL"], "add": ["SETUID", "SETGID"]},
        # unshare and mount.
        "seccompProfile": {"type": "Unconfined"},
        "appArmorProfile": {"type": "Unconfined"},
    }
    assert "--oci-worker-no-process-sandbox" in buildkit["args"]


@pytest.mark.parametrize("values", [{}, POOL])
def test_apparmor_is_set_on_buildkit_alone_in_the_way_of_each_kubernetes(values):
    def profiles(kubernetes: str) -> tuple[list[str], list[str]]:
        release = render(values, kubernetes=kubernetes)
        fields = [
            container["name"]
            for pod in release.pods
            for container in containers(pod)
            if "appArmorProfile" in container["securityContext"]
        ]
        templates = [workload["spec"]["template"]["metadata"] for workload in release.workloads]
        keys = [key for each in templates for key in each["annotations"]]
        # On a workload it would mean nothing: pro-builder's chart has it there.
        own = [workload["metadata"].get("annotations", {}) for workload in release.workloads]
        assert not any("apparmor" in key for each in own for key in each)
        return fields, [key for key in keys if "apparmor" in key]

    assert profiles("1.29") == ([], [APPARMOR])
    assert profiles("1.30") == (["buildkit"], [])
    assert profiles("1.37") == (["buildkit"], [])


@by_case
def test_only_who_asks_for_it_gets_a_privileged_buildkit(case):
    values = CASES[case]
    release = render(values)
    asked = values.get("buildkit", {}).get("rootless") is False
    for pod in release.pods:
        for container in containers(pod):
            privileged = container["securityContext"].get("privileged", False)
            in_user_namespace = pod.get("hostUsers") is False
            assert not privileged or (
                container["name"] == "buildkit" and (asked or in_user_namespace)
            )


@pytest.mark.parametrize("topology", ["sidecar", "pool"])
def test_user_namespaces_are_for_the_pods_with_a_buildkit(topology):
    release = render({**USERNS, "topology": topology, "replicas": 2})
    for pod in release.pods:
        has_buildkit = any(each["name"] == "buildkit" for each in containers(pod))
        assert pod.get("hostUsers", True) is not has_buildkit
    (buildkit,) = buildkits(release)
    assert not buildkit["image"].endswith("-rootless")
    assert "--oci-worker-no-process-sandbox" not in buildkit["args"]


@pytest.mark.parametrize(
    ("value", "container"), [("proBuilder", "pro-builder"), ("buildkit", "buildkit")]
)
@pytest.mark.parametrize(
    "over",
    [
        {"privileged": True},
        {"runAsUser": 0},
        {"runAsUser": 0, "runAsGroup": 0, "privileged": True},
        {"runAsUser": 2000, "readOnlyRootFilesystem": False},
        {"capabilities": {"add": ["SYS_PTRACE"]}},
    ],
)
def test_a_security_context_laid_over_ours_is_one_that_kubernetes_takes(value, container, over):
    context = render({value: {"securityContext": over}}).container(container)["securityContext"]
    # The API server refuses the one, the kubelet the other.
    assert not (context.get("privileged") and context.get("allowPrivilegeEscalation") is False)
    assert not (context["runAsUser"] == 0 and context.get("runAsNonRoot"))
    # All that was asked for is there, and what does not stand in its way is as it was.
    assert {**context, **over} | {"capabilities": None} == context | {"capabilities": None}
    assert context["capabilities"]["drop"] == ["ALL"]
    assert over.get("capabilities", {}).items() <= context["capabilities"].items()
    assert (
        context["seccompProfile"]
        == render().container(container)["securityContext"]["seccompProfile"]
    )


def test_what_a_security_context_says_itself_stays():
    """Contradictions of its own are its writer's, and Kubernetes tells of them."""
    over = {"runAsUser": 0, "runAsNonRoot": True}
    values = {"proBuilder": {"securityContext": over}}
    context = render(values).container("pro-builder")["securityContext"]
    assert over.items() <= context.items()


def test_pro_builders_values_can_be_taken_over_without_their_privileges():
    values = {**PRO_BUILDER, "buildkit": {**PRO_BUILDER["buildkit"], "hostUsers": False}}
    assert render(values).builders["spec"]["hostUsers"] is False


@pytest.mark.parametrize("values", [{}, PRO_BUILDER, USERNS, PRIVILEGED, EVERYTHING])
def test_buildkit_starts_before_the_builder_and_ends_after_it(values):
    spec = render(values).builders["spec"]
    # An init container that is started anew is a native sidecar; it needs a startup probe to be
    # waited for.
    assert [each["name"] for each in spec["initContainers"]] == ["cache", "buildkit"]
    buildkit = spec["initContainers"][1]
    assert buildkit["restartPolicy"] == "Always"
    assert "startupProbe" in buildkit
    assert [each["name"] for each in spec["containers"]] == ["pro-builder"]


def test_builder_and_sidecar_share_a_socket_and_nothing_else():
    release = render(CASES["emptyDir"])
    mounts = [
        {each["name"] for each in release.container(name)["volumeMounts"]}
        for name in ("pro-builder", "buildkit")
    ]
    assert mounts[0] & mounts[1] == {"socket-dir"}
    assert "--group=1000" in render(PRIVILEGED).container("buildkit")["args"]


@by_case
def test_the_grace_period_is_longer_than_the_drain(case):
    settings = {"drain_delay": 5, "drain_timeout": 300} | CASES[case].get("settings", {})
    grace = render(CASES[case]).builders["spec"]["terminationGracePeriodSeconds"]
    assert grace >= settings["drain_delay"] + settings["drain_timeout"] + 10


def test_the_grace_period_follows_the_drain():
    spec = render({"settings": {"drain_delay": 20, "drain_timeout": 3600}}).builders["spec"]
    assert spec["terminationGracePeriodSeconds"] > 3620


def test_the_builders_probes_are_pro_builders():
    builder = render().container("pro-builder")
    liveness, readiness = builder["livenessProbe"], builder["readinessProbe"]
    assert liveness["httpGet"]["path"] == "/healthz"
    assert readiness["httpGet"]["path"] == "/ready"
    for probe, expected in ((liveness, (2, 10, 2)), (readiness, (2, 5, 1))):
        keys = ("initialDelaySeconds", "periodSeconds", "failureThreshold")
        assert tuple(probe[key] for key in keys) == expected


@pytest.mark.parametrize("topology", ["sidecar", "pool"])
def test_buildkit_has_probes(topology):
    (buildkit,) = buildkits(render({"topology": topology}))
    # A sidecar needs no readiness probe: the builder's own /ready asks it.
    of_pool = {"readinessProbe"} if topology == "pool" else set()
    probes = {"startupProbe", "livenessProbe"} | of_pool
    assert {key for key in buildkit if key.endswith("Probe")} == probes
    assert all(buildkit[probe]["exec"]["command"][0] == "buildctl" for probe in probes)


PLACEMENT = ["affinity", "nodeSelector", "tolerations", "runtimeClassName"]


@pytest.mark.parametrize("key", PLACEMENT)
def test_pods_go_where_they_are_told(key):
    sidecar, pool = CASES["everything"], CASES["pool, everything"]
    assert render(sidecar).builders["spec"][key] == sidecar[key]
    assert render(pool).builders["spec"][key] == pool[key]
    values = {**POOL, "pool": {key: pool[key]}}
    workload = render(values).one("StatefulSet", "pro-builder-buildkit")
    assert workload["spec"]["template"]["spec"][key] == pool[key]


def test_irsa_gives_its_token_to_the_builder_alone():
    values = {"serviceAccount": "pro-builder-ecr", "securityContext": {"fsGroup": 65534}}
    template = render(values).builders
    assert template["spec"]["serviceAccountName"] == "pro-builder-ecr"
    assert template["spec"]["securityContext"]["fsGroup"] == 65534
    skipped = template["metadata"]["annotations"]["eks.amazonaws.com/skip-containers"]
    others = {each["name"] for each in containers(template["spec"])} - {"pro-builder"}
    assert set(skipped.split(",")) == others
    assert not render(values).all("ServiceAccount")


def test_the_chart_makes_a_service_account_that_has_annotations():
    release = render({"serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn"}})
    account = release.one("ServiceAccount")
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn"}
    assert account["automountServiceAccountToken"] is False
    assert release.builders["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_prometheus_is_told_where_the_metrics_are():
    annotations = render().builders["metadata"]["annotations"]
    assert (
        annotations.items()
        >= {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": "8081",
            "prometheus.io/path": "/metrics",
        }.items()
    )
    silent = render(CASES["bare"]).builders["metadata"]["annotations"]
    assert not any(key.startswith("prometheus.io") for key in silent)


@pytest.mark.parametrize("key", ["dnsPolicy", "dnsConfig", "hostAliases"])
def test_builders_and_buildkits_find_hosts_as_they_are_told(key):
    release = render(CASES["pool, everything"])
    for workload in release.workloads:
        assert workload["spec"]["template"]["spec"][key] == CASES["everything"][key]
    assert all(key not in pod for pod in render().pods)


@pytest.mark.parametrize(
    ("listen", "port"), [(":8080", 8080), ("[::]:9000", 9000), ("0.0.0.0:80", 80)]
)
def test_a_builder_listens_where_its_probes_and_its_service_look(listen, port):
    release = render({"listen": listen, "metricsListen": ":9100"})
    read = Settings.from_environment(release.environment)
    assert str(read.listen) == listen
    ports = {
        each["name"]: each["containerPort"] for each in release.container("pro-builder")["ports"]
    }
    assert ports == {"http": port, "metrics": read.metrics_listen.port}
    annotations = release.builders["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(read.metrics_listen.port)
    assert release.one("Service")["spec"]["ports"][0]["port"] == 8080


def test_a_pools_buildkits_listen_where_builders_ask():
    release = render({**POOL, "pool": {"listen": "[::]:1299"}})
    buildkit = release.container("buildkit")
    assert "--addr=tcp://[::]:1299" in buildkit["args"]
    assert [each["containerPort"] for each in buildkit["ports"]] == [1299]
    assert release.environment["buildkit_url"] == "dns://pro-builder-buildkit:1299"
    (port,) = release.one("Service", "pro-builder-buildkit")["spec"]["ports"]
    assert port["port"] == 1299


def test_by_default_pods_listen_on_ipv4_and_ipv6():
    release = render(POOL)
    assert Settings.from_environment(release.environment).listen == Settings().listen
    assert "--addr=tcp://:1234" in release.container("buildkit")["args"]


def test_the_service_has_the_families_it_is_told():
    for case, families in (("defaults", None), ("pool, everything", ["IPv6", "IPv4"])):
        release = render(CASES[case])
        assert release.one("Service", "pro-builder")["spec"].get("ipFamilies") == families
    policy = {"ipFamilyPolicy": "RequireDualStack"}
    release = render({**POOL, "service": policy})
    assert release.one("Service", "pro-builder")["spec"].items() >= policy.items()
    # An address each: builders take every address of this name for a BuildKit.
    assert "ipFamilyPolicy" not in release.one("Service", "pro-builder-buildkit")["spec"]
