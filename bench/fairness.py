"""`python -m bench.fairness`: docs/fairness.svg, and what 1,000 tenants cost.

The line of a builder (`server.slots`) runs by a clock of its own, so that hours take seconds. Its
builds only hold their slots.
"""

import heapq
import os
import random
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from statistics import median

from bench.svg import opening
from function_builder.contract.tenancy import Limits
from function_builder.server.places import Place
from function_builder.server.slots import Slots

SLOTS = 4
NOISY_BUILDS = 10_000
BUILD_SECONDS = 10.0
QUIET_COMES = 95.0
QUIET_BUILDS = 30
END_SECONDS = 300.0
TENANTS = 1000
SEED = 1

_PICTURE = Path("docs/fairness.svg")
_COLOURS = {"noisy": "#d9822b", "quiet": "#3b6ea5"}
_NAMES = {
    "noisy": f"noisy: {NOISY_BUILDS:,} builds wait from 0 s on",
    "quiet": f"quiet: {QUIET_BUILDS} builds come at {QUIET_COMES:g} s",
}
_LEFT, _TOP, _WIDTH, _HEIGHT = 50, 50, 700, 160

Sample = tuple[float, dict[str, int]]


class Run:
    """A line whose builds last `BUILD_SECONDS` on average."""

    def __init__(self, limits: Callable[[str], Limits]) -> None:
        self.now = 0.0
        self.slots = Slots(SLOTS, 1_000_000, limits=limits, clock=lambda: self.now)
        self._random = random.Random(SEED)
        self.samples: list[Sample] = []
        self.picks: list[float] = []
        self._waiting: list[tuple[Place, AbstractContextManager[Place]]] = []
        self._ends: list[tuple[float, int, AbstractContextManager[Place]]] = []

    def come(self, tenant: str, number: int) -> None:
        """Some builds of a tenant come now."""
        for _ in range(number):
            held = self.slots.place(tenant)
            self._waiting.append((held.__enter__(), held))
        self._begin()

    def until(self, end: float) -> None:
        """Let builds end until a time."""
        while self._ends and self._ends[0][0] <= end:
            self.now, _, held = heapq.heappop(self._ends)
            began = time.process_time()
            held.__exit__(None, None, None)
            self.picks.append(time.process_time() - began)
            self._begin()
        self.now = end

    def _begin(self) -> None:
        still = []
        for place, held in self._waiting:
            if place.position:
                still.append((place, held))
                continue
            lasts = self._random.uniform(0.5, 1.5) * BUILD_SECONDS
            heapq.heappush(self._ends, (self.now + lasts, id(held), held))
        self._waiting = still
        self.samples.append((self.now, dict(self.slots.taken_by_tenant())))


def main() -> None:
    """Draw the picture, and print the figures."""
    run = Run(lambda _: Limits())
    run.come("noisy", NOISY_BUILDS)
    run.until(QUIET_COMES)
    run.come("quiet", QUIET_BUILDS)
    run.until(END_SECONDS)
    first = next(at for at, taken in run.samples if taken.get("quiet"))
    _PICTURE.write_text("\n".join(picture(run.samples)) + "\n")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    print(f"quiet's first build began after {first - QUIET_COMES:.1f} s")
    _many()


def _many() -> None:
    tracemalloc.start()
    run = Run(lambda _: Limits())
    for number in range(TENANTS):
        run.come(f"tenant-{number}", 1)
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    run.until(TENANTS * BUILD_SECONDS)
    print(f"{TENANTS} tenants that wait: {memory / 1e6:.1f} MB")
    # The first tenth has nearly all of them in the line.
    picks = run.picks[: TENANTS // 10]
    print(f"an end and the next choice: {median(picks) * 1e3:.2f} ms of the processor")


def picture(samples: Sequence[Sample]) -> Iterable[str]:
    """Which tenant has how many slots, over time."""
    size = (_LEFT + _WIDTH + 30, _TOP + _HEIGHT + 50)
    legend = {_NAMES[tenant]: colour for tenant, colour in _COLOURS.items()}
    title = "Slots of a builder that two tenants share"
    yield from opening(title, size, legend, left=_LEFT, step=280)
    yield f'<g transform="translate({_LEFT} {_TOP})">'
    changes = [each for before, each in pairwise([(0.0, {}), *samples]) if each[1] != before[1]]
    ends = [*(at for at, _ in changes[1:]), END_SECONDS]
    for (at, taken), end in zip(changes, ends, strict=True):
        below = 0
        for tenant, colour in _COLOURS.items():
            number = taken.get(tenant, 0)
            if number and end > at:
                y = _HEIGHT * (1 - (below + number) / SLOTS)
                yield (
                    f'<rect x="{_x(at)}" y="{y:g}" width="{round(_x(end) - _x(at), 1)}" '
                    f'height="{_HEIGHT * number / SLOTS:g}" fill="{colour}"/>'
                )
            below += number
    for number in range(SLOTS + 1):
        y = _HEIGHT * (1 - number / SLOTS)
        yield f'<text x="-8" y="{y + 4:g}" text-anchor="end">{number}</text>'
    for second in range(0, int(END_SECONDS) + 1, 50):
        x, y = _x(second), _HEIGHT + 18
        yield f'<text x="{x}" y="{y}" text-anchor="middle">{second} s</text>'
    yield f'<text x="0" y="{_HEIGHT + 38}" fill="#666">slots taken; builds of 5 to 15 s</text>'
    yield "</g>"
    yield "</svg>"


def _x(seconds: float) -> float:
    return round(_WIDTH * seconds / END_SECONDS, 1)


if __name__ == "__main__":
    main()
