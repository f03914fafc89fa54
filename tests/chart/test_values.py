"""Values: pro-builder's count as they did, wrong ones are refused before anything is installed."""

import copy
from dataclasses import fields
from typing import Any

import pytest
import yaml

from function_builder.settings import OWN_BUILDKIT, Settings
from tests.chart.cases import CASES, PRO_BUILDER, nested, value_of
from tests.chart.kubernetes import faults
from tests.chart.render import CHART, SCHEMA, helm, objects, refused, render

# Decided by the chart, or by a value of another name.
NOT_SETTINGS = {
    "listen",
    "metrics_listen",
    "buildkit_url",
    "buildkit_server_name",
    "tlscacert",
    "tlscert",
    "tlskey",
    "disable_hmac",
    "max_inflight",
    "enable_lchown",
    "build_secrets_private_key_path",
    "tenants_file",
    "source_policy",
    "secret_mount_path",
    "DOCKER_CONFIG",
    "DOCKER_AUTH_CONFIG",
    "spool_dir",
    "max_spool_bytes",
    "nats_url",
    "nats_credentials_file",
    "nats_nkey_seed_file",
    "nats_ca_file",
    "nats_cert_file",
    "nats_key_file",
    "nats_replicas",
    "store_url",
    # The chart's BuildKits have a buildkitd.toml.
    *OWN_BUILDKIT,
}

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())


def test_pro_builders_values_reach_what_they_are_for():
    release = render(PRO_BUILDER)
    workload = release.one("StatefulSet", "pro-builder")
    assert workload["spec"]["replicas"] == 2
    assert release.environment["max_inflight"] == "3"
    assert release.environment["disable_hmac"] == "false"
    assert release.environment["build_secrets_private_key_path"] == "/var/secrets/buildkit/key"
    assert (
        release.environment["AWS_SHARED_CREDENTIALS_FILE"]
        == "/var/secrets/aws-credentials/aws-ecr-credentials"
    )
    builder, buildkit = release.container("pro-builder"), release.container("buildkit")
    assert builder["resources"] == {"requests": {"memory": "64Mi", "cpu": "100m"}}
    assert {builder["imagePullPolicy"], buildkit["imagePullPolicy"]} == {"Always"}
    assert buildkit["image"] == "moby/buildkit:v0.30.0"
    assert buildkit["resources"] == {"requests": {"memory": "2Gi", "cpu": "2000m"}}
    assert buildkit["securityContext"]["privileged"] is True


def test_values_of_older_pro_builder_charts_are_accepted_without_effect():
    older = {
        "image": "openfaas/pro-builder:0.2.0",
        "buildkitSecurityContext": {"privileged": True},
        "buildSecrets": {"keyID": "ZDBir4Ug"},
    }
    assert render(older).resources == render({}).resources


@pytest.mark.parametrize(("given", "read"), [(False, "false"), (True, "true"), ("time", "time")])
def test_log_prefixes_take_the_older_values_too(given, read):
    assert render({"settings": {"log_prefixes": given}}).environment["log_prefixes"] == read


def test_pro_builders_secrets_are_found_where_they_were():
    release = render(PRO_BUILDER)
    volumes = {each["name"]: each.get("secret", {}) for each in release.builders["spec"]["volumes"]}
    mounts = {
        volumes[each["name"]].get("secretName"): each["mountPath"]
        for each in release.container("pro-builder")["volumeMounts"]
    }
    assert (
        mounts.items()
        >= {
            "payload-secret": "/var/openfaas/secrets",
            "registry-secret": "/home/app/.docker",
            "pro-builder-build-secrets-key": "/var/secrets/buildkit",
            "aws-ecr-credentials": "/var/secrets/aws-credentials",
        }.items()
    )
    assert "openfaas-license" not in str(release.resources)


def test_its_service_keeps_name_port_and_address():
    service = render(PRO_BUILDER).one("Service", "pro-builder")
    (port,) = service["spec"]["ports"]
    assert (port["port"], service["spec"]["type"]) == (8080, "ClusterIP")


@pytest.mark.parametrize("fullname", ["pro-builder", "builder-of-another-name"])
def test_its_deployment_can_become_ours(fullname):
    """A Deployment's selector can never change: it has to be pro-builder's."""
    values = {"fullnameOverride": fullname, "buildkit": {"cache": {"type": "emptyDir"}}}
    deployment = render(values).one("Deployment", fullname)
    expected = {"app": "pro-builder", "component": "pro-builder"}
    assert deployment["spec"]["selector"]["matchLabels"] == expected


def test_the_closed_products_image_is_replaced_and_others_are_not():
    def image(name: str) -> str:
        return str(render({"proBuilder": {"image": name}}).container("pro-builder")["image"])

    ours = image("")
    assert image("ghcr.io/openfaasltd/pro-builder:0.5.5") == ours
    assert image("mirror.internal/openfaasltd/pro-builder@sha256:0") == ours
    assert image("registry.internal/function-builder:1") == "registry.internal/function-builder:1"


@pytest.mark.parametrize(
    "value",
    [
        "replicas",
        "nameOverride",
        "imagePullPolicy",
        "proBuilder.maxInflight",
        "proBuilder.resources",
        "proBuilder.securityContext",
        "buildkit.resources",
        "buildkit.securityContext",
        "awsCredentialsSecret",
        "serviceAccount",
        "securityContext",
        "nodeSelector",
        "tolerations",
        "affinity",
        "disableHmac",
        "enableLchown",
    ],
)
def test_a_value_may_be_left_empty(value):
    """As `securityContext:` is, once all below it is made a comment."""
    release = render(nested(value, None))
    for resource in release.resources:
        assert not faults("1.34", resource), value
    assert release.environment["disable_hmac"] == "false"


PRO_BUILDERS_MAPS = ("proBuilder", "buildkitRootless", "buildkit", "buildSecrets")
WITH_DEFAULTS = [
    *PRO_BUILDERS_MAPS,
    "settings",
    "buildkit.cache",
    *(
        f"{of}.{key}"
        for of in (*PRO_BUILDERS_MAPS, "buildkit.cache", "settings")
        for key in value_of(DEFAULTS, of)
        if key != "resources"
    ),
]


@pytest.mark.parametrize("values", [{}, PRO_BUILDER])
@pytest.mark.parametrize("value", WITH_DEFAULTS)
def test_a_value_left_empty_has_its_default(values, value):
    """Whole maps too, as `settings:` is once all below it is made a comment."""
    others = copy.deepcopy(values)
    given: dict[str, Any] = others
    *path, key = value.split(".")
    for step in path:
        given = given.setdefault(step, {})
    given.pop(key, None)
    default = render(others).resources
    given[key] = None
    assert render(others).resources == default


@pytest.mark.parametrize("container", ["pro-builder", "buildkit"])
def test_resources_left_empty_are_none(container):
    value = {"pro-builder": "proBuilder", "buildkit": "buildkit"}[container]
    assert render(nested(f"{value}.resources", None)).container(container)["resources"] is None


@pytest.mark.parametrize(
    ("release", "name_override", "named"),
    [
        ("pro-builder", "", "pro-builder"),
        ("my-pro-builder-2", "", "my-pro-builder-2"),
        ("builds", "", "builds-pro-builder"),
        ("builds", "images", "builds-images"),
        ("builds", "build", "builds"),
        ("r" * 53, "", "r" * 52),
    ],
)
def test_without_fullname_override_names_are_those_of_pro_builder(release, name_override, named):
    values = {"fullnameOverride": "", "nameOverride": name_override}
    result = helm("template", release, str(CHART), values=values)
    assert result.returncode == 0, result.stderr
    resources = objects(result.stdout).resources
    (workload,) = (each for each in resources if each["kind"] == "StatefulSet")
    assert workload["metadata"]["name"] == named


def test_the_longest_name_leaves_room_for_what_a_stateful_sets_pods_are_called():
    """A label of theirs is its name with a dash and ten characters more, of the 63 of a label."""
    release = render({"fullnameOverride": "n" * 60, "topology": "pool"})
    names = [each["metadata"]["name"] for each in release.workloads]
    assert sorted(map(len, names)) == [52, 52]
    assert release.environment["buildkit_url"] == f"dns://{'n' * 43}-buildkit:1234"


@pytest.mark.parametrize(
    ("size", "in_bytes"),
    [
        ("5Gi", 5 * 2**30),
        ("500M", 500 * 10**6),
        ("1Ti", 2**40),
        ("7000000000", 7 * 10**9),
        (7_000_000_000, 7 * 10**9),
    ],
)
def test_the_builder_itself_keeps_to_the_spools_size(size, in_bytes):
    """Its files have no name, and the kubelet measures those that have."""
    release = render({"proBuilder": {"spoolSize": size}})
    assert release.environment["max_spool_bytes"] == str(in_bytes)
    volumes = {each["name"]: each for each in release.builders["spec"]["volumes"]}
    assert volumes["spool"]["emptyDir"] == {"sizeLimit": str(in_bytes)}


@pytest.mark.parametrize("size", ["5 Gi", "1.5Gi", "5GB", "0", "", "Gi"])
def test_what_is_no_size_is_told_though_the_schema_is_skipped(size):
    values = {"proBuilder": {"spoolSize": size}}
    assert "spoolSize" in refused(values)
    unchecked = helm(
        "template", "pro-builder", str(CHART), "--skip-schema-validation", values=values
    )
    assert f'"{size}" is not a size: use a whole number of bytes' in unchecked.stderr


def test_it_may_be_a_part_of_another_chart():
    assert render({"enabled": True, "global": {"any": "thing"}}).resources == render().resources


def test_each_setting_can_be_set_or_is_the_charts_to_decide():
    settings = {setting.metadata["variable"] for setting in fields(Settings)}
    known = set(SCHEMA["properties"]["settings"]["properties"])
    assert known == settings - NOT_SETTINGS
    assert settings >= NOT_SETTINGS


def test_settings_reach_the_builder_as_it_reads_them():
    settings = render(CASES["everything"]).environment
    assert settings["max_body_bytes"] == "268435456"
    assert settings["log_prefixes"] == "time"
    read = Settings.from_environment(settings)
    assert (read.build_timeout, read.drain_timeout) == (45 * 60, 300)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replica": 2}, "replica"),
        ({"proBuilder": {"maxInFlight": 3}}, "maxInFlight"),
        ({"proBuilder": {"maxInflight": "many"}}, "maxInflight"),
        ({"replicas": "two"}, "replicas"),
        ({"buildkit": {"rootless": "no"}}, "rootless"),
        ({"buildkit": {"cache": {"size": "50 GB"}}}, "size"),
        ({"proBuilder": {"spoolSize": 0}}, "spoolSize"),
        ({"buildkit": {"registries": {"docker.io": {"mirror": ["m"]}}}}, "mirror"),
        ({"disableHmac": "perhaps"}, "disableHmac"),
        ({"topology": "mesh"}, "topology"),
        ({"imagePullPolicy": "Sometimes"}, "imagePullPolicy"),
        ({"settings": {"max_bytes": 1}}, "max_bytes"),
        ({"settings": {"drain_timeout": "5m"}}, "drain_timeout"),
        ({"networkPolicy": {"egressExcept": ["metadata.internal"]}}, "egressExcept"),
        ({"topology": "external"}, "buildkit.url"),
        ({"autoscaling": {"enabled": True}}, "proBuilder.maxInflight"),
        (
            {"autoscaling": {"enabled": True}, "proBuilder": {"maxInflight": "0"}},
            "proBuilder.maxInflight",
        ),
        (
            {"topology": "pool", "tls": {"certManager": {"enabled": True}}},
            "issuerRef",
        ),
    ],
)
def test_a_wrong_value_is_named(values, named):
    assert named in refused(values)


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"maxInflight": 3}, "Did you mean it in proBuilder?"),
        ({"env": []}, "Did you mean it in proBuilder or buildkit?"),
        ({"max_queue": 3}, "Did you mean it in settings?"),
        ({"settings": {"replicas": 3}}, "Did you mean it at the top level, outside settings?"),
    ],
)
def test_a_value_one_level_too_high_or_too_low_is_refused_with_its_place(values, place):
    assert place in refused(values)


def test_user_namespaces_are_refused_where_kubernetes_would_drop_them():
    values = {"buildkit": {"hostUsers": False}}
    assert "drops the field before 1.33 (this is v1.32.4-eks-1" in refused(
        values, kubernetes="1.32.4-eks-1"
    )
    assert render(values, kubernetes="1.33.0-gke.1").container("buildkit")


def test_kubernetes_without_native_sidecars_is_refused():
    assert "incompatible with Kubernetes v1.28.0" in refused({}, kubernetes="1.28.0")
