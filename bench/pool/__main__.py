"""`python -m bench.pool`: measure a pool of BuildKits, print tables in Markdown."""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.command import run, show_rows
from bench.pool.cases import loss, moves, rate, warm
from bench.pool.holds import holds
from bench.pool.many import spread, watch
from bench.pool.stage import stage
from bench.pool.traffic import traffic
from bench.report import commit

CASES = {case.__name__: case for case in (warm, moves, loss, rate, traffic, holds, watch, spread)}


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="bench.pool", description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="default: every one")
    options = parser.parse_args()
    run(partial(_measure, options.case or list(CASES)))


async def _measure(cases: Sequence[str], root: Path) -> None:
    async with stage(root) as one:
        for name in cases:
            begin = time.perf_counter()
            rows = await CASES[name](one)
            print(f"{name}: {time.strftime('%Y-%m-%d')}, commit {commit()}, ", end="")
            print(f"{time.perf_counter() - begin:.0f} s\n")
            show_rows(rows)


main()
