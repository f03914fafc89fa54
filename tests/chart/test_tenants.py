"""Tenants: the Secret that a builder has them from, as the guide makes it."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from function_builder.settings import Settings
from tests.chart.render import ROOT, render

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
GUIDE = PAGE.split("\n## Run it for customers")[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^   ```{language}\n(.*?)^   ```", GUIDE, re.MULTILINE | re.DOTALL)


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
    program = tmp_path / "bin" / "function-builder"
    program.parent.mkdir()
    program.symlink_to(Path(sys.executable).with_name("function-builder"))
    done = subprocess.run(
        ["/bin/sh", "-ec", blocks("sh")[0]],
        cwd=tmp_path,
        env={"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = yaml.safe_load((tmp_path / "tenants" / "tenants.yaml").read_text())["tenants"]
    assert list(made) == ["acme", "globex"]
    # Each file of the directory can be a key of the Secret, and the file names each.
    named = {each["payload_secret_file"] for each in made.values()} | {"tenants.yaml"}
    assert {each.name for each in (tmp_path / "tenants").iterdir()} == named
