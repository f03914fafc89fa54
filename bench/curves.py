"""`python -m bench.curves FILE`: docs/sizes.svg, of what `bench.sizes` has written to FILE.

A panel for each thing that grows, both scales logarithmic: a line as steep as the dotted one grows
as the size does.
"""

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.sizes import GROWTHS
from bench.svg import RatioScale, opening

_PICTURE = Path("docs/sizes.svg")
_TITLES = {
    "files": "files in the context, one changed",
    "bytes": "bytes of a file that did not change",
    "lines": "lines that a step prints",
    "clients": "tiny cached builds at once, seconds for each",
}
_COLOURS = {"wall": "#3b6ea5", "cpu": "#d9822b"}
_NAMES = {"wall": "whole request, seconds", "cpu": "the builder's processor time, seconds"}

_PANEL_WIDTH, _PANEL_HEIGHT, _TOP = 400, 270, 40
_LEFT, _PLOT_WIDTH, _PLOT_HEIGHT = 50, 320, 170
_SECONDS = RatioScale(0.01, 200.0, _PLOT_HEIGHT)

Points = Sequence[Mapping[str, float]]


def main() -> None:
    """Read the file and draw."""
    parser = argparse.ArgumentParser(prog="bench.curves", description=__doc__)
    parser.add_argument("file", type=Path)
    growths: dict[str, Points] = json.loads(parser.parse_args().file.read_text())["growths"]
    _PICTURE.write_text("\n".join(picture(growths)) + "\n")


def picture(growths: Mapping[str, Points]) -> Iterable[str]:
    """An SVG of four panels."""
    width, height = 2 * _PANEL_WIDTH, _TOP + 2 * _PANEL_HEIGHT
    legend = {_NAMES[name]: colour for name, colour in _COLOURS.items()}
    yield from opening(
        "What a build takes as it grows", (width, height), legend, left=_LEFT, step=190
    )
    yield f'<text x="{_LEFT + 450}" y="22">dotted: as the size grows</text>'
    for number, growth in enumerate(each for each in GROWTHS if each.name in growths):
        x, y = _PANEL_WIDTH * (number % 2), _TOP + _PANEL_HEIGHT * (number // 2)
        yield f'<g transform="translate({x + _LEFT} {y + 20})">'
        yield from _panel(_TITLES[growth.name], growths[growth.name])
        yield "</g>"
    yield "</svg>"


def _panel(title: str, points: Points) -> Iterable[str]:
    yield f'<text x="0" y="-6" font-weight="bold">{title}</text>'
    for power in range(-2, 3):
        y = _y(10.0**power)
        yield f'<line x1="0" y1="{y}" x2="{_PLOT_WIDTH}" y2="{y}" stroke="#ddd"/>'
        yield f'<text x="-6" y="{y + 4}" text-anchor="end">{10.0**power:g}</text>'
    sizes = [point["size"] for point in points]
    scale = _PLOT_WIDTH / math.log(sizes[-1] / sizes[0])
    xs = [round(scale * math.log(size / sizes[0]), 1) for size in sizes]
    for x, point in zip(xs, points, strict=True):
        size = _si(point["size"])
        yield f'<text x="{x}" y="{_PLOT_HEIGHT + 16}" text-anchor="middle">{size}</text>'
        yield (
            f'<text x="{x}" y="{_PLOT_HEIGHT + 32}" text-anchor="middle" fill="#666">'
            f"{point['peak']:.0f} MB</text>"
        )
    last = points[-1]["cpu"]
    start = max(_SECONDS.least, last * sizes[0] / sizes[-1])
    x = round(xs[-1] - scale * math.log(last / start), 1)
    yield (
        f'<line x1="{x}" y1="{_y(start)}" x2="{xs[-1]}" y2="{_y(last)}" '
        'stroke="#888" stroke-dasharray="2 4"/>'
    )
    for name, colour in _COLOURS.items():
        ys = [_y(point[name]) for point in points]
        line = " ".join(f"{x},{y}" for x, y in zip(xs, ys, strict=True))
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, y, point in zip(xs, ys, points, strict=True):
            yield (
                f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}">'
                f"<title>{point[name]:.3f} s</title></circle>"
            )


def _y(seconds: float) -> float:
    return round(_PLOT_HEIGHT - _SECONDS.place(seconds), 1)


def _si(size: float) -> str:
    for unit, letter in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if size >= unit:
            return f"{size / unit:g}{letter}"
    return f"{size:g}"


if __name__ == "__main__":
    main()
