"""BuildKit: its cache and what bounds it, its configuration, and how builders reach it."""

import tomllib
from typing import Any

import pytest

from tests.chart.cases import CASES, POOL
from tests.chart.render import Release, render

GIB = 2**30


def toml(values: dict[str, Any]) -> dict[str, Any]:
    return tomllib.loads(render(values).buildkitd_toml)


def claim(release: Release, name: str) -> dict[str, Any]:
    (found,) = release.one("StatefulSet", name)["spec"]["volumeClaimTemplates"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("size", "in_bytes"),
    [("50Gi", 50 * GIB), ("1Ti", 1024 * GIB), ("200G", 200 * 10**9), ("8Gi", 8 * GIB)],
)
def test_garbage_collection_fits_the_volume(size, in_bytes):
    worker = toml({"buildkit": {"cache": {"size": size}}})["worker"]["oci"]
    assert worker["gc"] is True
    # A build may exceed what is collected after it, and must not fill the volume.
    assert in_bytes * 0.7 < worker["maxUsedSpace"] < in_bytes * 0.9
    assert 0 < worker["reservedSpace"] < worker["maxUsedSpace"]
    assert worker["maxUsedSpace"] + worker["minFreeSpace"] < in_bytes


@pytest.mark.parametrize(
    ("topology", "workload"), [("sidecar", "pro-builder"), ("pool", "pro-builder-buildkit")]
)
def test_each_buildkit_keeps_its_cache_on_a_volume_of_its_own(topology, workload):
    values = {"topology": topology, "buildkit": {"cache": {"size": "9Gi"}}}
    release = render(values)
    template = claim(release, workload)
    assert template["spec"]["resources"]["requests"]["storage"] == "9Gi"
    assert template["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert "storageClassName" not in template["spec"]
    # Wherever BuildKit is told to keep it, the volume is.
    (mount,) = (
        each
        for each in release.container("buildkit")["volumeMounts"]
        if each["name"] == template["metadata"]["name"]
    )
    assert toml(values)["root"] == mount["mountPath"]
    retention = release.one("StatefulSet", workload)["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert retention["whenScaled"] == "Retain"


def test_a_storage_class_can_be_named():
    values = {"buildkit": {"cache": {"storageClassName": "fast"}}}
    assert claim(render(values), "pro-builder")["spec"]["storageClassName"] == "fast"


def test_without_a_volume_the_cache_is_bounded_too():
    release = render(CASES["emptyDir"])
    assert not release.all("StatefulSet")
    volumes = {each["name"]: each for each in release.builders["spec"]["volumes"]}
    assert volumes["cache"] == {"name": "cache", "emptyDir": {"sizeLimit": "20Gi"}}
    strategy = release.one("Deployment", "pro-builder")["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_a_builder_knows_what_its_buildkit_asks_before_a_registry():
    registries = {
        "docker.io": {"mirrors": ["m:5000/hub", "http://no.setting"]},
        "ghcr.io": {"mirrors": ["m:5000"]},
    }
    values = {"buildkit": {"registries": registries}, "payloadSecret": "s"}
    given = "docker.io=m:5000/hub,ghcr.io=m:5000"
    assert render(values).environment["registry_mirrors"] == given
    own = {**values, "settings": {"registry_mirrors": "docker.io=other:5000"}}
    assert render(own).environment["registry_mirrors"] == "docker.io=other:5000"
    assert "registry_mirrors" not in render({}).environment


def test_registries_and_parallelism_reach_buildkit():
    config = toml(CASES["everything"])
    assert config["registry"] == CASES["everything"]["buildkit"]["registries"]
    assert config["worker"]["oci"]["max-parallelism"] == 8
    assert config["log"] == {"format": "json"}


def test_a_new_configuration_starts_buildkit_anew_and_a_new_chart_does_not():
    def checksum(values: dict[str, Any]) -> object:
        return render(values).builders["metadata"]["annotations"]["checksum/buildkitd.toml"]

    assert checksum({}) == checksum({"replicas": 2})
    assert checksum({}) != checksum({"buildkit": {"maxParallelism": 2}})
    labels = render().builders["metadata"]["labels"]
    assert not {"helm.sh/chart", "app.kubernetes.io/version"} & labels.keys()


@pytest.mark.parametrize("values", [{}, {"buildkit": {"rootless": False}}, POOL])
def test_nobody_gets_entitlements(values):
    config = toml(values)
    assert "insecure-entitlements" not in config
    assert config["cdi"] == {"disabled": True}
    flags = render(values).container("buildkit")["args"]
    assert not [flag for flag in flags if "entitlement" in flag]


def test_a_sidecar_listens_to_its_builder_alone():
    release = render()
    addresses = [
        flag for flag in release.container("buildkit")["args"] if flag.startswith("--addr=")
    ]
    assert addresses == ["--addr=unix:///run/builder/buildkitd.sock"]
    mounts = {
        name: {each["name"]: each["mountPath"] for each in release.container(name)["volumeMounts"]}
        for name in ("pro-builder", "buildkit")
    }
    assert mounts["buildkit"]["socket-dir"] == "/run/builder"
    socket = mounts["pro-builder"]["socket-dir"] + "/buildkitd.sock"
    assert release.environment["buildkit_url"] == f"unix://{socket}"


def test_a_pool_is_reached_by_one_name_with_certificates_on_both_sides():
    release = render(POOL)
    service = release.one("Service", "pro-builder-buildkit")
    workload = release.one("StatefulSet", "pro-builder-buildkit")
    assert release.environment["buildkit_url"] == "dns://pro-builder-buildkit:1234"
    assert service["spec"]["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in service["spec"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert workload["spec"]["replicas"] == 4
    buildkit = release.container("buildkit")
    assert {
        "--tlscacert=/var/secrets/certs/ca.crt",
        "--tlscert=/var/secrets/certs/server.crt",
        "--tlskey=/var/secrets/certs/server.key",
    } <= set(buildkit["args"])
    secrets = {
        volume["secret"]["secretName"]
        for pod in release.pods
        for volume in pod["volumes"]
        if "certs" in volume["name"]
    }
    assert secrets == {"buildkit-client-certs", "buildkit-daemon-certs"}


def test_builders_learn_of_a_new_buildkit_before_the_next_is_replaced():
    workload = render(POOL).one("StatefulSet", "pro-builder-buildkit")
    asked_every, answer_is_old = 5, 5
    assert workload["spec"]["minReadySeconds"] > asked_every + answer_is_old


def test_the_clients_service_has_no_buildkit_behind_it():
    release = render(POOL)
    selector = release.one("Service", "pro-builder")["spec"]["selector"]
    workload = release.one("StatefulSet", "pro-builder-buildkit")
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert not selector.items() <= labels.items()
    test = release.one("Pod")["metadata"]["labels"]
    assert not selector.items() <= test.items()


def test_cert_managers_certificates_are_good_for_the_name_that_builders_use():
    release = render(CASES["pool, cert-manager"])
    certificates = {each["spec"]["secretName"]: each for each in release.all("Certificate")}
    server = certificates["buildkit-daemon-certs"]["spec"]
    assert release.environment["buildkit_url"] == f"dns://{server['dnsNames'][0]}:1234"
    assert "server auth" in server["usages"]
    assert "client auth" in certificates["buildkit-client-certs"]["spec"]["usages"]
    items = [
        volume["secret"]["items"]
        for pod in release.pods
        for volume in pod["volumes"]
        if "certs" in volume["name"]
    ]
    paths = [{each["key"]: each["path"] for each in files} for files in items]
    assert {"ca.crt": "ca.crt", "tls.crt": "client.crt", "tls.key": "client.key"} in paths
    assert {"ca.crt": "ca.crt", "tls.crt": "server.crt", "tls.key": "server.key"} in paths


def test_cert_managers_certificate_is_good_for_each_tenants_pool():
    release = render(CASES["pool, tenants' pools, cert-manager"])
    (names,) = (
        each["spec"]["dnsNames"]
        for each in release.all("Certificate")
        if each["spec"]["secretName"] == "buildkit-daemon-certs"
    )
    pools = {each["metadata"]["name"] for each in release.all("StatefulSet")}
    assert set(names) == pools == {f"pro-builder-buildkit{end}" for end in ("", "-acme", "-globex")}


def test_an_external_buildkit_is_all_that_is_needed():
    release = render(CASES["external"])
    assert release.environment["buildkit_url"] == "tcp://buildkitd.builds:1234"
    names = {each["name"] for pod in release.pods for each in pod["containers"]}
    assert names == {"pro-builder", "build"}
    assert not any("initContainers" in pod for pod in release.pods)


@pytest.mark.parametrize(
    ("values", "size", "speed"),
    [
        ({}, "2097152", "-1"),
        ({"maxSize": -1, "maxSpeed": 204800}, "-1", "204800"),
        ({"maxSize": 2147483647}, "2147483647", "-1"),
    ],
)
def test_what_buildkit_keeps_of_a_steps_output(values, size, speed):
    container = render({"buildkit": {"stepLog": values}}).container("buildkit")
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment["BUILDKIT_STEP_LOG_MAX_SIZE"] == size
    assert environment["BUILDKIT_STEP_LOG_MAX_SPEED"] == speed
