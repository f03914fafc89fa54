"""`python -m bench.delta_page FILE…`: what docs/performance.md shows of results of `bench.delta`.

The tables go to standard output, the picture to docs/delta.svg. Of two files that hold one case,
the later named counts.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.command import show_rows
from bench.svg import RatioScale, opening

_PICTURE = Path("docs/delta.svg")

_LEFT, _WIDTH, _ROW, _TOP = 400, 480, 46, 46
_SCALE = RatioScale(0.005, 15.0, _WIDTH)
_LINES = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)
_COLOURS = {"measured": "#3b6ea5", "floor": "#9aa7b4", "full": "#d9822b"}
_NAMES = {
    "measured": "only what changed",
    "floor": "BuildKit's own part of it",
    "full": "full request",
}

Document = Mapping[str, Any]
"""What `bench.delta` writes."""

Case = Mapping[str, Any]


def main() -> None:
    """Read files and write both."""
    parser = argparse.ArgumentParser(prog="bench.delta_page", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    documents = [json.loads(file.read_text()) for file in parser.parse_args().files]
    print_tables(documents)
    _PICTURE.write_text("\n".join(picture(_cases(documents))) + "\n")


def print_tables(documents: Sequence[Document]) -> None:
    """Print the tables, in Markdown."""
    machine = documents[-1]["machine"]
    print(
        f"Measured on {machine['date']} with {machine['cpus']} processors ({machine['cpu']}), Linux"
        f" {machine['kernel']}, Python {machine['python']} and {machine['buildkit']}."
        f" The commit is {machine['commit']}.\n"
    )
    if cases := _cases(documents):
        show_rows([_row(case) for case in cases])
    amounts = {name: rows for each in documents for name, rows in each["amounts"].items()}
    for rows in amounts.values():
        show_rows(rows)


def picture(cases: Sequence[Case]) -> Iterable[str]:
    """An SVG: bars for the ratios to buildctl on a logarithmic scale, a stroke for the target."""
    bottom = _TOP + _ROW * len(cases)
    size = _LEFT + _WIDTH + 20, bottom + 34
    title = "Time of a whole build, divided by that of buildctl"
    yield from opening(title, size, _NAMED_COLOURS, left=20, step=190)
    yield f'<text x="{_LEFT + 250}" y="22">black stroke: target; shorter is faster</text>'
    for value in _LINES:
        x = _x(value)
        colour = "#444" if value == 1 else "#ddd"
        yield f'<line x1="{x}" y1="{_TOP - 8}" x2="{x}" y2="{bottom}" stroke="{colour}"/>'
        yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>'
    for number, case in enumerate(cases):
        top = _TOP + _ROW * number
        yield f'<text x="{_LEFT - 10}" y="{top + 22}" text-anchor="end">{case["title"]}</text>'
        for place, (name, colour) in enumerate(_COLOURS.items()):
            if ratios := _ratios(case, name):
                yield _bar(top + 12 * place, statistics.median(ratios), colour)
        target = _x(case["target"])
        yield (
            f'<line x1="{target}" y1="{top}" x2="{target}" y2="{top + 12}" '
            'stroke="black" stroke-width="2"/>'
        )
    yield "</svg>"


_NAMED_COLOURS = {_NAMES[name]: colour for name, colour in _COLOURS.items()}


def _bar(top: int, ratio: float, colour: str) -> str:
    return (
        f'<rect x="{_LEFT}" y="{top}" width="{_x(ratio) - _LEFT:.1f}" height="11" '
        f'fill="{colour}"><title>{ratio:.2f}</title></rect>'
    )


def _cases(documents: Sequence[Document]) -> Sequence[Case]:
    return list({case["case"]: case for each in documents for case in each["ratios"]}.values())


def _row(case: Case) -> Mapping[str, object]:
    measured = _ratios(case, "measured")
    met = statistics.median(measured) <= case["target"]
    cpu = {name: f"{statistics.fmean(each):.2f}" for name, each in case["cpu"].items() if each}
    return {
        "case": case["title"],
        "rounds": len(measured),
        "load": f"{case['load']:.0f}",
        "÷ buildctl": _spread(measured),
        "target": f"≤ {case['target']:.2f}: {'met' if met else '**not met**'}",
        "floor": f"{statistics.median(_ratios(case, 'floor')):.2f}",
        "full request ÷ buildctl": _spread(_ratios(case, "full")),
        "buildctl, s": f"{statistics.median(case['walls']['buildctl']):.2f}",
        "CPU s": cpu[case["measured"]],
        "full": cpu.get("full", "-"),
        "buildctl": cpu["buildctl"],
    }


def _ratios(case: Case, name: str) -> Sequence[float]:
    """The ratio to buildctl in each round that has this contender."""
    walls = case["walls"]
    found = {"measured": walls[case["measured"]], "floor": case["floors"]}
    mine = found.get(name) or walls.get(name, ())
    return [one / other for one, other in zip(mine, walls["buildctl"], strict=False)]


def _spread(ratios: Sequence[float]) -> str:
    """The median, and the quartiles of several."""
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}" if ratios else "-"
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _x(value: float) -> float:
    """Where a ratio stands."""
    return round(_LEFT + _SCALE.place(value), 1)


if __name__ == "__main__":
    main()
