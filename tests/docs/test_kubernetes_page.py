"""The pages for who runs it on Kubernetes name values, settings and metrics that there are."""

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from function_builder.server.prometheus import Metrics
from function_builder.settings import Settings
from tests.chart.kubernetes import faults
from tests.chart.render import KUBERNETES, ROOT, SCHEMA, Release, helm

DOCS = ROOT / "docs"
PAGES = [
    DOCS / "kubernetes.md",
    DOCS / "kubernetes-in-ten-minutes.md",
    *(DOCS / f"{page}.md" for page in ("builds", "network", "registries", "runbook", "scaling")),
    DOCS / "tenants.md",
    ROOT / "chart/function-builder/README.md",
]
VALUES = jsonschema_rs.Draft7Validator(SCHEMA)
EXAMPLES = [
    yaml.safe_load(block)
    for page in PAGES
    # That of the tenants file is no value of the chart.
    if page.name != "tenants.md"
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
]

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def is_a_value(path: str) -> bool:
    schema: dict[str, Any] = SCHEMA
    for key in path.split("."):
        if "properties" not in schema:
            # Kubernetes' own from here on.
            return True
        if key not in schema["properties"]:
            return False
        schema = schema["properties"][key]
    return True


@by_page
def test_values_that_it_names_are_values(page: Path):
    text = page.read_text()
    named = set(re.findall(r"`([A-Za-z]+(?:\.[A-Za-z_]+)+)(?:: [^`]*)?`", text))
    named |= set(re.findall(r"--set ([\w.]+)=", text))
    named -= {"tls.crt", "tls.key", "tenants.yaml", "tenants.md"}  # keys of a Secret, a page
    values = {name for name in named if name.split(".")[0] in SCHEMA["properties"]}
    assert values
    assert [name for name in values if not is_a_value(name)] == []


def test_a_value_that_is_none_would_be_seen():
    assert is_a_value("buildkit.cache.size")
    assert not is_a_value("buildkit.cache.bigness")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: next(iter(example)))
def test_examples_of_values_are_taken(example):
    # prometheus-adapter's and KEDA's are their own.
    if not example.keys() & {"rules", "externalRules", "apiVersion"}:
        VALUES.validate(example)


@by_page
def test_settings_and_metrics_that_it_names_exist(page: Path):
    names = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?:\{[^`]*\})?`", page.read_text()))
    settings = {setting.metadata["variable"] for setting in fields(Settings)}
    metrics = {
        metric._name + ("_total" if metric._type == "counter" else "")
        for metric in vars(Metrics()).values()
        if isinstance(metric, MetricWrapperBase)
    }
    ours = {name for name in names if re.match("function_builder|drain_|max_(?!user)", name)}
    assert ours - settings - metrics == set()


def test_the_helm_command_for_ten_minutes_renders_the_image_and_the_setting():
    page = (DOCS / "kubernetes-in-ten-minutes.md").read_text()
    (line,) = re.findall(r"^helm upgrade --install (?:.*\\\n)*.*$", page, re.MULTILINE)
    name, chart, *options = shlex.split(line.replace("\\\n", " "))[3:]
    at = options.index("--values") + 1
    options[at] = str(ROOT / options[at])
    rendered = helm("template", name, str(ROOT / chart), *options)
    assert rendered.returncode == 0, rendered.stderr
    release = Release([each for each in yaml.safe_load_all(rendered.stdout) if each])
    assert [fault for each in release.resources for fault in faults(KUBERNETES, each)] == []
    pod = release.one("Deployment", "pro-builder")["spec"]["template"]["spec"]
    (builder,) = pod["containers"]
    assert builder["image"] == "function-builder:local"
    assert {"name": "insecure", "value": "true"} in builder["env"]
