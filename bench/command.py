"""What the commands that measure have in common: a directory while they run, and tables."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path

Row = Mapping[str, object]
"""A line of a table: what is measured, by the column's name."""


def run(measure: Callable[[Path], Coroutine[None, None, None]]) -> None:
    """Measure in a directory that is gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        asyncio.run(measure(root))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def show_rows(rows: Sequence[Row]) -> None:
    """Print a table in Markdown, and an empty line."""
    print(f"| {' | '.join(rows[0])} |\n|{' --- |' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")
    print(flush=True)
