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
        assert "permissions" in job or name == "check"
        assert job.get("permissions", {}).get("contents", "read") == "read"
