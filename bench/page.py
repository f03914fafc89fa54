"""`python -m bench.page FILE…`: what docs/performance.md shows of results in `.run/bench`.

The table goes to standard output, the picture to docs/performance.svg. Of two files that hold one
case, the later named counts.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.cases import CASES
from bench.svg import RatioScale, opening

_PICTURE = Path("docs/performance.svg")

_LEFT, _WIDTH, _ROW, _TOP = 290, 480, 34, 46
_SCALE = RatioScale(0.04, 16, _WIDTH)
_LINES = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_COLOURS = {"buildctl": "#3b6ea5", "go": "#d9822b"}
_NAMES = {"buildctl": "÷ buildctl", "go": "÷ Go server"}

Case = Mapping[str, Any]
"""A case as `bench.measure.Outcome.to_json` gives it."""


def main() -> None:
    """Read files and write both."""
    parser = argparse.ArgumentParser(prog="bench.page", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    found: dict[str, Case] = {}
    for file in parser.parse_args().files:
        found |= {case["case"]: case for case in json.loads(file.read_text())["cases"]}
    cases = [found[case.name] for case in CASES if case.name in found]
    print("\n".join(table(cases)))
    _PICTURE.write_text("\n".join(picture(cases)) + "\n")


def table(cases: Iterable[Case]) -> Iterable[str]:
    """The rows, in Markdown: medians of the rounds' ratios, quartiles, targets."""
    yield "| case | rounds | ÷ buildctl | target | ÷ Go server | target | Go server ÷ buildctl |"
    yield "|---|---|---|---|---|---|---|"
    for case in cases:
        cells = [case["title"], str(len(_walls(case, "ours")))]
        for other in ("buildctl", "go"):
            target = case["targets"][other]
            middle, spread = _ratio(case, "ours", other)
            met = "met" if middle <= target else "**not met**"
            cells += [f"{middle:.2f} ({spread})", f"≤ {target:.2f}: {met}"]
        middle, spread = _ratio(case, "go", "buildctl")
        cells.append(f"{middle:.2f} ({spread})")
        yield f"| {' | '.join(cells)} |"


def picture(cases: Sequence[Case]) -> Iterable[str]:
    """An SVG: a bar for each ratio on a logarithmic scale, a stroke for its target."""
    height = _TOP + _ROW * len(cases) + 34
    width = _LEFT + _WIDTH + 20
    title = "Time of a whole request, divided by that of buildctl and of a Go server"
    legend = {_NAMES[name]: colour for name, colour in _COLOURS.items()}
    yield from opening(title, (width, height), legend, left=_LEFT, step=130)
    yield f'<text x="{_LEFT + 260}" y="22">black stroke: target; shorter is faster</text>'
    bottom = _TOP + _ROW * len(cases)
    for value in _LINES:
        x = _x(value)
        colour = "#444" if value == 1 else "#ddd"
        yield f'<line x1="{x}" y1="{_TOP - 8}" x2="{x}" y2="{bottom}" stroke="{colour}"/>'
        yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>'
    for row, case in enumerate(cases):
        y = _TOP + _ROW * row
        yield f'<text x="{_LEFT - 10}" y="{y + 17}" text-anchor="end">{case["title"]}</text>'
        for number, (name, colour) in enumerate(_COLOURS.items()):
            middle = _ratio(case, "ours", name)[0]
            top = y + 1 + 13 * number
            yield (
                f'<rect x="{_LEFT}" y="{top}" width="{_x(middle) - _LEFT:.1f}" height="12" '
                f'fill="{colour}"><title>{middle:.2f}</title></rect>'
            )
            target = _x(case["targets"][name])
            yield (
                f'<line x1="{target}" y1="{top}" x2="{target}" y2="{top + 12}" '
                'stroke="black" stroke-width="2"/>'
            )
    yield "</svg>"


def _walls(case: Case, contender: str) -> list[float]:
    return [sample["wall"] for sample in case["series"][contender]["samples"]]


def _ratio(case: Case, one: str, other: str) -> tuple[float, str]:
    """The median of the rounds' ratios, and their quartiles."""
    pairs = zip(_walls(case, one), _walls(case, other), strict=True)
    ratios = [mine / theirs for mine, theirs in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, f"{low:.2f} to {high:.2f}"


def _x(value: float) -> float:
    """Where a ratio stands."""
    return round(_LEFT + _SCALE.place(value), 1)


if __name__ == "__main__":
    main()
