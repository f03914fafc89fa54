"""The release workflow runs commands that there are, in jobs that may do no more than they need."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / ".github" / "workflows" / "release.yml").read_text()
JOBS = yaml.safe_load(TEXT)["jobs"]


def test_the_paths_that_it_names_exist() -> None:
    paths = re.findall(r"(?:scripts|\.ci|image|chart|packages)/[\w/.-]+\w", TEXT)
    assert {"scripts/dist", ".ci/run", "image/Dockerfile"} <= set(paths)
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_each_job_publishes_only_what_was_checked() -> None:
    for name, job in JOBS.items():
        before = job.get("needs")
        while before and before != "check":
            before = JOBS[before].get("needs")
        assert name == "check" or before == "check", name
        assert job["permissions"].get("contents", "read") == "read"


def test_actions_are_pinned_to_commits() -> None:
    used = re.findall(r"uses: (.*)", TEXT)
    assert used
    by_name = {action for action in used if not re.fullmatch(r"\S+@[0-9a-f]{40} # v\S+", action)}
    assert {action.partition("@")[0] for action in by_name} == {"pypa/gh-action-pypi-publish"}


def test_the_token_for_pypi_is_in_a_job_without_commands() -> None:
    assert JOBS["wheels"]["permissions"] == {"id-token": "write"}
    assert not [step for step in JOBS["wheels"]["steps"] if "run" in step]
