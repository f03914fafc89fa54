"""The targets, and the inputs kept of each: they seed the search, and `make test` replays them.

`python -m fuzz.corpora TARGET DIRECTORY` adds what is in a directory, and keeps the fewest inputs
that reach as much.
"""

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

TARGETS = ("archive", "config", "fsutil", "http2", "manifest", "patterns", "secrets")
"""Modules of this package. `run` takes any bytes, and raises only where something is wrong."""

LONGEST = 8 << 10
"""Bytes of a kept input."""

PACKAGES = ("aiobuildkit", "function_builder", "hpack")
"""Code whose steps count; it leads the search too."""

_STAYING = ("finding-", "seed-")
_CORPORA = Path(__file__).parent / "corpus"

_Step = tuple[str, int, int]


def runner(target: str) -> Callable[[bytes], None]:
    """What runs one input."""
    run: Callable[[bytes], None] = importlib.import_module(f"fuzz.{target}").run
    return run


def corpus(target: str) -> list[Path]:
    """Its kept inputs."""
    return sorted((_CORPORA / target).iterdir())


def keep(target: str, found: Path) -> None:
    """Keep of the corpus and what was found the fewest inputs that go every step.

    A greedy choice, as the fewest are hard to find: time and again the input that goes the most
    steps that no other went yet, the shortest of those. Those made by hand, `seed-…`, and
    those that once failed, `finding-…`, stay.
    """
    run = runner(target)
    kept = corpus(target)
    inputs = {path.read_bytes() for path in [*kept, *found.iterdir()]}
    reached = {data: _steps(run, data) for data in inputs if len(data) <= LONGEST}
    for path in kept:
        if not path.name.startswith(_STAYING):
            path.unlink()
    while reached:
        best = max(reached, key=lambda data: (len(reached[data]), -len(data), data))
        gone = reached[best]
        if not gone:
            break
        (_CORPORA / target / hashlib.sha256(best).hexdigest()[:16]).write_bytes(best)
        reached = {data: steps - gone for data, steps in reached.items()}


def _steps(run: Callable[[bytes], None], data: bytes) -> set[_Step]:
    """From which line of code to which other one it goes."""
    with _traced() as steps:
        run(data)
    return steps


@contextmanager
def _traced() -> Iterator[set[_Step]]:
    steps: set[_Step] = set()

    def begin(frame: FrameType, _event: str, _given: Any) -> Any:
        if frame.f_globals["__name__"].partition(".")[0] not in PACKAGES:
            return None
        last = 0

        def go(frame: FrameType, event: str, _given: Any) -> Any:
            nonlocal last
            if event == "line":
                steps.add((frame.f_code.co_filename, last, frame.f_lineno))
                last = frame.f_lineno
            return go

        return go

    sys.settrace(begin)
    try:
        yield steps
    finally:
        sys.settrace(None)


if __name__ == "__main__":
    keep(sys.argv[1], Path(sys.argv[2]))
