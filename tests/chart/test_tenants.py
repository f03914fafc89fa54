"""Tenants: the Secret that a builder has them from, as the guide makes it."""

import pytest
import yaml

from function_builder.settings import Settings
from tests.chart.cases import TENANTS_POOLS
from tests.chart.render import refused, render
from tests.support.customers_guide import blocks, run_block


def test_without_tenants_nothing_is_mounted():
    release = render()
    assert "tenants_file" not in release.environment
    assert "tenants" not in {each["name"] for each in release.builders["spec"]["volumes"]}


def test_the_guides_values_give_each_builder_the_secret():
    (values,) = blocks("yaml")
    given = yaml.safe_load(values)
    release, before = render(given), render(given | {"tenants": {"secret": ""}})
    volumes = {each["name"]: each for each in release.builders["spec"]["volumes"]}
    assert volumes["tenants"]["secret"]["secretName"] == "tenants"
    mounts = release.container("pro-builder")["volumeMounts"]
    (mount,) = (each for each in mounts if each["name"] == "tenants")
    settings = Settings.from_environment(
        {name: text.replace("$(NATS_PASSWORD)", "x") for name, text in release.environment.items()}
    )
    assert settings.tenants_file == f"{mount['mountPath']}/tenants.yaml"
    assert (mount["readOnly"], settings.audit_log) == (True, "-")
    assert release.all("NetworkPolicy") == before.all("NetworkPolicy")


def test_the_guides_first_commands_make_tenants(tmp_path):
    said = run_block(0, tmp_path)
    assert "--remote-builder https://acme.builder.example.com/build " in said
    made = yaml.safe_load((tmp_path / "tenants" / "tenants.yaml").read_text())["tenants"]
    assert list(made) == ["acme", "globex"]
    # Each file of the directory can be a key of the Secret, and the file names each.
    named = {each["payload_secret_file"] for each in made.values()} | {"tenants.yaml"}
    assert {each.name for each in (tmp_path / "tenants").iterdir()} == named


def test_the_secret_of_values_is_the_one_that_is_mounted():
    files = {
        "tenants.yaml": "tenants: {acme: {payload_secret_file: acme.secret}}",
        "acme.secret": "x",
    }
    release = render({"tenants": {"files": files}})
    made = release.one("Secret")
    assert made["stringData"] == files
    volumes = {each["name"]: each for each in release.builders["spec"]["volumes"]}
    assert volumes["tenants"]["secret"]["secretName"] == made["metadata"]["name"]
    assert "tenants_file" in release.environment
    assert "leave one of them empty" in refused({"tenants": {"files": files, "secret": "tenants"}})


@pytest.mark.parametrize("topology", ["sidecar", "pool"])
def test_a_tenants_pool_is_like_the_shared_one_and_apart_from_it(topology):
    values = TENANTS_POOLS | {"topology": topology}
    release = render(values)
    names = {"acme": "pro-builder-buildkit-acme", "globex": "pro-builder-buildkit-globex"}
    shared = render({"topology": "pool"}).one("StatefulSet", "pro-builder-buildkit")["spec"]
    found = []
    for name in (*names.values(), *(["pro-builder-buildkit"] if topology == "pool" else [])):
        spec = release.one("StatefulSet", name)["spec"]
        labels = spec["template"]["metadata"]["labels"]
        found.append(labels["component"])
        assert spec["serviceName"] == name
        assert release.one("Service", name)["spec"]["selector"].items() <= labels.items()
        policy = release.one("NetworkPolicy", name)["spec"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
        (peer,) = policy["ingress"][0]["from"]
        builders = release.builders["metadata"]["labels"]
        assert peer["podSelector"]["matchLabels"].items() <= builders.items()
        pod = spec["template"]["spec"]
        assert pod["containers"] == shared["template"]["spec"]["containers"]
    assert len(found) == len(set(found))
    acme = release.one("StatefulSet", names["acme"])["spec"]
    assert acme["replicas"] == 2
    assert acme["template"]["spec"]["nodeSelector"] == {"customer": "acme"}
    globex = release.one("StatefulSet", names["globex"])["spec"]
    assert (globex["replicas"], "nodeSelector" in globex["template"]["spec"]) == (1, False)
    # Builders reach each of them, with certificates.
    egress = release.one("NetworkPolicy", "pro-builder")["spec"]["egress"]
    reached = [
        peer["podSelector"]["matchLabels"]["component"]
        for rule in egress
        for peer in rule.get("to", [])
        if "podSelector" in peer
    ]
    assert sorted(reached) == sorted(found)
    mounts = {each["name"] for each in release.container("pro-builder")["volumeMounts"]}
    assert "client-certs" in mounts
    assert ("socket-dir" in mounts) == (topology == "sidecar")


def test_the_name_of_a_tenants_pool_has_room_for_what_its_pods_are_called():
    long = {"tenants": {"pools": {32 * "a": {"replicas": 1}}}}
    assert "has more than 52 characters" in refused(long)
    assert "missing property 'replicas'" in refused({"tenants": {"pools": {"acme": {}}}})
