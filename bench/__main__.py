"""`python -m bench`: measure cases, print tables, write what was measured to `.run/bench`."""

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from rich.console import Console

from bench.cases import CASES, Case
from bench.measure import bench
from bench.report import show
from function_builder.engine import find_tool

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
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        asyncio.run(_measure(cases, options.rounds, root))
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def _measure(cases: list[Case], rounds: int, root: Path) -> None:
    console = Console()
    measured: list[dict[str, object]] = []
    document = {"machine": _machine(), "rounds": rounds, "cases": measured}
    results = _RESULTS / f"{time.strftime('%Y%m%dT%H%M%S')}.json"
    async with bench(root) as running:
        for case in cases:
            outcome = await running.run(case, rounds)
            show(outcome, console)
            # After each case: a run that is broken off keeps what it has.
            measured.append(outcome.to_json())
            results.write_text(json.dumps(document, indent=1) + "\n")
    console.print(f"written: {results}", highlight=False)


def _machine() -> dict[str, object]:
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(": ")[2] for line in info.splitlines() if "model name" in line]
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    buildctl = [str(find_tool("buildctl")), "--version"]
    commit = ["git", "describe", "--always", "--dirty"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpus": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "memory": f"{pages * page / 1e9:.0f} GB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "buildkit": subprocess.run(
            buildctl, check=True, capture_output=True, text=True
        ).stdout.strip(),
        "commit": subprocess.run(
            commit, check=False, capture_output=True, text=True
        ).stdout.strip(),
    }


def _rounds(text: str) -> int:
    number = int(text)
    if not _FEWEST_ROUNDS <= number <= _MOST_ROUNDS:
        raise argparse.ArgumentTypeError(f"from {_FEWEST_ROUNDS} to {_MOST_ROUNDS}")
    return number


main()
