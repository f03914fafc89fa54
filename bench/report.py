"""Samples in numbers that people read: medians of paired ratios, spread, outliers."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.measure import Outcome, Series
from function_builder.engine import find_tool


def machine() -> dict[str, object]:
    """Where, with what and when a run was made."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(": ")[2] for line in info.splitlines() if "model name" in line]
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    buildctl = [str(find_tool("buildctl")), "--version"]
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
        "commit": commit(),
    }


def commit() -> str:
    """What was measured, as git names it."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def show(outcome: Outcome, console: Console) -> None:
    """Print a case's table."""
    case = outcome.case
    table = Table(title=f"{case.title} ({case.name})", title_justify="left")
    for column in ("", "wall s", "min", "max", "CPU s", "buildkitd", "idle", "peak MB"):
        table.add_column(column, justify="right" if column else "left")
    for name, series in outcome.series.items():
        wall = [sample.wall for sample in series.samples]
        table.add_row(
            name,
            f"{statistics.median(wall):.4f}",
            f"{min(wall):.4f}",
            f"{max(wall):.4f}",
            # Of so short a time the mean alone is finer than the kernel's tick.
            f"{statistics.fmean(sample.cpu for sample in series.samples):.4f}",
            f"{statistics.fmean(sample.buildkitd_cpu for sample in series.samples):.4f}",
            *("-" if size is None else f"{size:.0f}" for size in (series.idle, series.peak)),
        )
    console.print(table)
    for name, series in outcome.series.items():
        far = outliers([sample.wall for sample in series.samples])
        if far:
            console.print(f"  outliers of {name}: {' '.join(f'{value:.4f}' for value in far)} s")
    ours, buildctl, go = (outcome.series[name] for name in ("ours", "buildctl", "go"))
    manifest = outcome.series.get("manifest")
    for words, one, other, target in (
        ("ours ÷ buildctl", ours, buildctl, case.buildctl),
        *([("manifest ÷ buildctl", manifest, buildctl, case.manifest)] if manifest else []),
        ("ours ÷ go", ours, go, case.go),
        ("go ÷ buildctl", go, buildctl, None),
    ):
        ratios = paired(one, other)
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        line = f"  {words:19} {middle:.2f}  (quartiles {low:.2f} - {high:.2f})"
        if target is not None:
            line += f"  target {target:.2f}: {'met' if middle <= target else 'MISSED'}"
        console.print(line, highlight=False)


def paired(one: Series, other: Series) -> list[float]:
    """The ratio of wall times in each round."""
    pairs = zip(one.samples, other.samples, strict=True)
    return [mine.wall / theirs.wall for mine, theirs in pairs]


def outliers(values: Sequence[float]) -> list[float]:
    """Those beyond the quartiles by more than 1.5 times what lies between them (Tukey)."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    reach = 1.5 * (high - low)
    return [value for value in values if not low - reach <= value <= high + reach]
