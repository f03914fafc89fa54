"""SECURITY.md names tests that there are, so that no claim outlives what shows it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
NAMED = re.findall(r"`(?:tests/)?([\w/]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_the_test_is_there(path: str, name: str) -> None:
    module = ast.parse((ROOT / "tests" / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {each.name for each in module.body if isinstance(each, functions)}


def test_each_attack_has_what_stops_it_and_what_shows_it() -> None:
    section = PAGE.split("\n## Attacks")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    attacks = [row for row in rows if not row.startswith("| attack |")]
    assert len(attacks) > 20
    for row in attacks:
        _, attack, stops, shown, _ = row.split("|")
        assert attack.strip(), row
        assert stops.strip(), row
        assert re.search(r"`[\w/]+\.py::\w+`", shown), row
