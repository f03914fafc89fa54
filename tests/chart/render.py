"""The chart as helm renders it."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from function_builder.engine import find_tool

ROOT = Path(__file__).parents[2]
CHART = ROOT / "chart" / "function-builder"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
KUBERNETES = "1.34"

Values = Mapping[str, Any]
Resource = dict[str, Any]


def helm(*arguments: str, values: Values | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm on the chart, `values` laid over its own."""
    return subprocess.run(
        [find_tool("helm"), *arguments, "--values=-"],
        check=False,
        input=json.dumps(dict(values or {})),
        capture_output=True,
        text=True,
        timeout=60,
        # It ends before its garbage matters: to collect it took a third of the processor time.
        env={**os.environ, "GOGC": "off"},
    )


@dataclass(frozen=True)
class Release:
    """The objects of one rendering."""

    resources: list[Resource]

    def all(self, kind: str) -> list[Resource]:
        return [resource for resource in self.resources if resource["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Resource:
        (found,) = (
            resource
            for resource in self.all(kind)
            if name is None or resource["metadata"]["name"] == name
        )
        return found

    @property
    def workloads(self) -> list[Resource]:
        return self.all("StatefulSet") + self.all("Deployment")

    @property
    def pods(self) -> list[Resource]:
        """Every pod's specification, those of tests too."""
        templates = [workload["spec"]["template"]["spec"] for workload in self.workloads]
        return templates + [pod["spec"] for pod in self.all("Pod")]

    @property
    def builders(self) -> Resource:
        """The builders' pod template."""
        (found,) = (
            workload["spec"]["template"]
            for workload in self.workloads
            if workload["metadata"]["name"] == "pro-builder"
        )
        assert isinstance(found, dict)
        return found

    def container(self, name: str) -> Resource:
        """A container of the one pod that has it."""
        (found,) = (
            container
            for pod in self.pods
            for container in containers(pod)
            if container["name"] == name
        )
        return found

    @property
    def environment(self) -> dict[str, str]:
        """The builder's, but for what is a Secret's."""
        env = self.container("pro-builder")["env"]
        return {each["name"]: each["value"] for each in env if "value" in each}

    @property
    def buildkitd_toml(self) -> str:
        config = self.one("ConfigMap", "pro-builder-buildkit")
        return str(config["data"]["buildkitd.toml"])


def containers(pod: Resource) -> list[Resource]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def render(values: Values | None = None, *, kubernetes: str = KUBERNETES) -> Release:
    """`helm template`, as a release `pro-builder` in the namespace `openfaas`."""
    return _rendered(json.dumps(dict(values or {})), kubernetes)


@cache
def _rendered(values: str, kubernetes: str) -> Release:
    result = helm(
        "template",
        "pro-builder",
        str(CHART),
        "--namespace=openfaas",
        f"--kube-version={kubernetes}",
        values=json.loads(values),
    )
    assert result.returncode == 0, result.stderr
    return objects(result.stdout)


def objects(documents: str) -> Release:
    """The objects of helm's output; libyaml reads them ten times as fast as yaml's own Python."""
    loaded = yaml.load_all(documents, Loader=yaml.CSafeLoader)
    return Release([each for each in loaded if each])


def refused(values: Values, *, kubernetes: str = KUBERNETES) -> str:
    """Why helm refuses to render these values."""
    version = f"--kube-version={kubernetes}"
    result = helm("template", "pro-builder", str(CHART), version, values=values)
    assert result.returncode != 0, result.stdout
    return result.stderr
