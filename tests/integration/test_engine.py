"""The engine with real programs: what it starts answers, comes back, and is gone at the end."""

import subprocess

import pytest

from function_builder.engine import find_tool

pytestmark = pytest.mark.integration


def buildctl(address, *arguments, cwd=None):
    return subprocess.run(
        [find_tool("buildctl"), "--addr", address, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=100,
    )


def test_a_function_is_built_on_the_seeded_base_and_pushed(buildkitd, registry, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo $((6*7)) > /answer\n")
    buildctl(
        buildkitd,
        "build",
        "--frontend",
        "dockerfile.v0",
        "--local",
        "context=.",
        "--local",
        "dockerfile=.",
        "--output",
        f"type=image,name={registry}/engine/answer:1,push=true",
        cwd=tmp_path,
    )
