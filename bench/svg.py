"""What the pictures of measurements share: how they begin, and their scale."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RatioScale:
    """A logarithmic scale: equal ratios have equal lengths.

    Attributes:
        least: the value at its start; lesser ones are there too.
        most: the value at its end; larger ones are there too.
        length: in the picture's units.
    """

    least: float
    most: float
    length: float

    def place(self, value: float) -> float:
        """How far a value is from the start."""
        share = math.log(value / self.least) / math.log(self.most / self.least)
        return self.length * min(max(share, 0), 1)


def opening(
    title: str, size: tuple[int, int], legend: Mapping[str, str], *, left: int, step: int
) -> Iterable[str]:
    """The picture's frame, and a coloured square for each name of the legend.

    Args:
        title: for who does not see it.
        size: its width and height.
        legend: colour by name.
        left: where the first square stands.
        step: from one square to the next.
    """
    width, height = size
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">'
    )
    yield f"<title>{title}</title>"
    yield f'<rect width="{width}" height="{height}" fill="white"/>'
    for number, (name, colour) in enumerate(legend.items()):
        x = left + step * number
        yield f'<rect x="{x}" y="12" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{x + 18}" y="22">{name}</text>'
