"""`function-builder policy test`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PINNED = "docker-image://r.example.com/alpine@sha256:0"
UNKNOWN = "https://example.com/${UNKNOWN}"
POLICY = {
    "rules": [
        {
            "name": "no hub",
            "action": "DENY",
            "selector": {"identifier": "docker-image://docker.io/*"},
        },
        {
            "name": "pinned",
            "action": "CONVERT",
            "selector": {"identifier": "docker-image://docker.io/library/alpine:3"},
            "updates": {"identifier": PINNED},
        },
    ]
}
DOCKERFILE = """\
ARG BASE
FROM alpine:3
COPY --from=busybox /a /
ADD http://127.0.0.1/x https://example.com/${UNKNOWN} /
FROM ${BASE}
"""


def tried(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`policy test policy.json .` in a directory."""
    command = (sys.executable, "-m", "function_builder", "policy", "test", "policy.json", ".")
    return subprocess.run(
        [*command, *options], check=False, capture_output=True, text=True, cwd=directory
    )


def test_each_source_has_its_line_and_its_rule(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    ran = tried(tmp_path, "--build-arg", "BASE=golang")
    alpine = "docker-image://docker.io/library/alpine:3"
    lines = ran.stdout.splitlines()
    assert lines[:4] == [
        "allowed  the build context  local://dockerfile",
        "allowed  the build context  local://context",
        f"allowed  Dockerfile:2  {alpine} -> {PINNED} (rule: pinned)",
        "DENIED   Dockerfile:3  docker-image://docker.io/library/busybox:latest (rule: no hub)",
    ]
    assert lines[4].startswith("DENIED   Dockerfile:4  http://127.0.0.1/x (rule: local_sources)")
    assert lines[5:] == [
        f"unknown  Dockerfile:4  {UNKNOWN}: its value is known in a build alone",
        "DENIED   Dockerfile:5  docker-image://docker.io/library/golang:latest (rule: no hub)",
    ]
    assert ran.returncode == 3
    assert "ONBUILD" in ran.stderr


@pytest.mark.parametrize(
    ("tenants", "error"),
    [
        ("{", "policy.json: line 1, column 2: not JSON"),
        (
            '{"rules": [{"action": "ALLOW", "selector": {"identifier": "*"}}]}',
            "a tenant's file may then only DENY and CONVERT",
        ),
    ],
)
def test_a_policy_that_cannot_be_used_is_an_error(tmp_path: Path, tenants: str, error: str) -> None:
    (tmp_path / "policy.json").write_text(tenants)
    (tmp_path / "own.json").write_text(
        '{"rules": [{"action": "ALLOW", "selector": {"identifier": "*"}}]}'
    )
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    ran = tried(tmp_path, "--source-policy", "own.json")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert error in ran.stderr
