"""docs/troubleshooting.md quotes messages that there are."""

import ast
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = re.findall(r"^### `(.+)`", PAGE, re.MULTILINE)
ANYTHING = "…"


@cache
def sources() -> Sequence[ast.Module]:
    paths = [path for folder in ("src", "packages") for path in (ROOT / folder).rglob("*.py")]
    return [ast.parse(path.read_text()) for path in paths if not path.stem.endswith("_pb2")]


def constants() -> dict[str, str]:
    """The texts with a name of their own, such as CONFIG_NAME."""
    found: dict[str, str] = {}
    for module in sources():
        for node in module.body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AnnAssign):
                targets = [node.target]
            value = getattr(node, "value", None)
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found |= {each.id: value.value for each in targets if isinstance(each, ast.Name)}
    return found


@cache
def texts() -> AbstractSet[str]:
    """Every text in the source; what is filled in is `…`, unless it is a constant."""
    known = constants()

    def part(node: ast.expr) -> str:
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.FormattedValue(value=ast.Name(id=name)) if name in known:
                return known[name]
        return ANYTHING

    nodes = [node for module in sources() for node in ast.walk(module)]
    joined = {"".join(map(part, node.values)) for node in nodes if isinstance(node, ast.JoinedStr)}
    return joined | {part(node) for node in nodes if isinstance(node, ast.Constant)}


def is_said(message: str) -> bool:
    wanted = re.compile(".*".join(map(re.escape, message.split(ANYTHING))), re.DOTALL)
    if any(wanted.search(text) for text in texts()):
        return True
    # One part of the program may end what another has begun: "cancelled{reason}".
    beginnings = (text[:-1] for text in texts() if text.endswith(ANYTHING) and text != ANYTHING)
    rests = (message.removeprefix(each) for each in beginnings if message.startswith(each))
    return any(rest.removeprefix(": ") in texts() for rest in rests)


@pytest.mark.parametrize("message", QUOTED)
def test_the_message_is_in_the_source(message):
    assert is_said(message)


def test_a_message_that_nobody_says_would_be_seen():
    assert not is_said("The body is not a zip archive.")
    assert not is_said("the build was cancelled: for no reason")


def test_the_page_has_messages():
    assert len(QUOTED) > 40
