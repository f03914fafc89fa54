"""`python -m bench`: measure cases, print tables, write what was measured to `.run/bench`."""

import argparse
import json
import time
from functools import partial
from pathlib import Path

from rich.console import Console

from bench.cases import CASES, Case
from bench.command import run
from bench.measure import Bench, buildkit_and_registry
from bench.report import machine, show

_RESULTS = Path(".run/bench")
_FEWEST_ROUNDS = 2
_MOST_ROUNDS = 200


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    names = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=names, help="default: every one")
    parser.add_argument("--rounds", type=_rounds, default=15, help="measured rounds (default 15)")
    options = parser.parse_args()
    cases = [case for case in CASES if not options.case or case.name in options.case]
    _RESULTS.mkdir(parents=True, exist_ok=True)
    run(partial(_measure, cases, options.rounds))


async def _measure(cases: list[Case], rounds: int, root: Path) -> None:
    console = Console()
    measured: list[dict[str, object]] = []
    document = {"machine": machine(), "rounds": rounds, "cases": measured}
    results = _RESULTS / f"{time.strftime('%Y%m%dT%H%M%S')}.json"
    async with buildkit_and_registry(root) as daemon:
        running = Bench(root, daemon)
        for case in cases:
            outcome = await running.run(case, rounds)
            show(outcome, console)
            # After each case: a run that is broken off keeps what it has.
            measured.append(outcome.to_json())
            results.write_text(json.dumps(document, indent=1) + "\n")
    console.print(f"written: {results}", highlight=False)


def _rounds(text: str) -> int:
    number = int(text)
    if not _FEWEST_ROUNDS <= number <= _MOST_ROUNDS:
        raise argparse.ArgumentTypeError(f"from {_FEWEST_ROUNDS} to {_MOST_ROUNDS}")
    return number


main()
