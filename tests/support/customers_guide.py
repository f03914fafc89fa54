"""The guide «Run it for customers», whose commands and values the tests use."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_PAGE: Final = (Path(__file__).parents[2] / "docs" / "tenants.md").read_text()
_GUIDE: Final = _PAGE.split("\n## Run it for customers")[1].split("\n## ")[0].split("\n### ")[0]


def blocks(language: str) -> list[str]:
    """The guide's blocks of a language, in order."""
    found = re.findall(rf"^   ```{language}\n(.*?)^   ```", _GUIDE, re.MULTILINE | re.DOTALL)
    return [re.sub("^   ", "", block, flags=re.MULTILINE) for block in found]


def run_block(number: int, directory: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a shell block, with this clone's `function-builder`; its output."""
    program = directory / "bin" / "function-builder"
    if not program.exists():
        program.parent.mkdir()
        program.symlink_to(Path(sys.executable).with_name("function-builder"))
    done = subprocess.run(
        ["/bin/sh", "-ec", blocks("sh")[number]],
        cwd=directory,
        env={"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(directory)}
        | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
