"""Write what follows from the chart's values: the README's table, and the schema's hints.

`scripts/chart_values.py` writes both files; with `--check` it only says whether they are current.

A value that is one level too high or too low is refused with the place where it belongs. JSON
Schema has no messages of its own, so a hint is a `const` that no value equals: helm prints it.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHART = Path(__file__).parents[1] / "chart" / "function-builder"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
_KEY = re.compile(r"( *)([A-Za-z_]\w*):(?: (.*))?")
_OF_THE_TOP = ("proBuilder", "buildkit", "settings", "queue", "pool")
"""Groups in which values of the top level are looked for."""

Schema = dict[str, Any]


def rows(values: str) -> Iterator[tuple[str, str, str]]:
    """Each value of values.yaml: its path, its default, and the comment above it."""
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in [*values.splitlines(), ""]:
        text = line.strip()
        if text.startswith("#"):
            # Examples are indented further.
            comment += [text[2:]] if not text.startswith("#  ") else []
            continue
        found = _KEY.fullmatch(line)
        if found:
            indent, name, default = len(found[1]), found[2], found[3] or ""
            path = [*(each for each in path if each[0] < indent), (indent, name)]
            if default or comment:
                yield ".".join(each for _, each in path), default, " ".join(comment)
        comment = []


def table(values: str) -> str:
    """The values as a table in Markdown."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for path, default, meaning in rows(values):
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{path}` | {shown} | {meaning.replace('<', '&lt;')} |")
    return "\n".join(lines)


def readme(text: str, values: str) -> str:
    """The README with the table of these values."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table(values)}\n{END}{rest.partition(END)[2]}"


def hinted(schema: Schema) -> Schema:
    """The schema with hints for values that are one level too high or too low."""
    top = schema["properties"]
    places: dict[str, list[str]] = {}
    for group, each in top.items():
        if each.get("additionalProperties") is False:
            for key in each.get("properties", {}).keys() - top.keys():
                places.setdefault(key, []).append(group)
    hints: dict[str, list[str]] = {}
    for key, groups in places.items():
        hints.setdefault(" or ".join(groups), []).append(key)
    schema["patternProperties"] = {
        _pattern(keys): {"const": f"(not here) Did you mean it in {groups}?"}
        for groups, keys in sorted(hints.items())
    }
    for group in _OF_THE_TOP:
        keys = top.keys() - top[group]["properties"].keys()
        hint = f"(not here) Did you mean it at the top level, outside {group}?"
        top[group]["patternProperties"] = {_pattern(keys): {"const": hint}}
    return schema


def _pattern(keys: Any) -> str:
    return f"^({'|'.join(sorted(keys))})$"


def main() -> int:
    """Write the files, or compare them."""
    values = (CHART / "values.yaml").read_text()
    page, schema = CHART / "README.md", CHART / "values.schema.json"
    made = json.dumps(hinted(json.loads(schema.read_text())), indent=2, ensure_ascii=False) + "\n"
    current = {page: readme(page.read_text(), values), schema: made}
    old = [path for path, text in current.items() if path.read_text() != text]
    for path in old:
        if "--check" in sys.argv:
            print(f"check: {path.name} is old: run scripts/chart_values.py", file=sys.stderr)
        else:
            path.write_text(current[path])
    return 1 if old and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
