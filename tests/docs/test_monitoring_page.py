"""docs/monitoring.md lists the metrics, their labels' values, and the alerts."""

import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from function_builder.builds.build import Outcome
from function_builder.builds.phases import BuildPhase
from function_builder.queue.port import CallbackOutcome
from function_builder.server.metrics import REASONS
from function_builder.server.prometheus import Metrics
from function_builder.server.queue_metrics import Failure, Part, State
from tests.chart.monitoring.queries import alerts

PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()


def table(first_heading: str) -> list[list[str]]:
    """The rows of a table, found by the heading of its first column."""
    block = PAGE.split(f"\n| {first_heading} |")[1].split("\n\n")[0]
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in block.splitlines()[2:]]


def names(first_heading: str) -> set[str]:
    return {row[0].strip("`") for row in table(first_heading)}


def test_every_metric_is_listed_as_it_is():
    listed = {row[0].strip("`"): row[1:] for row in table("metric")}
    declared = {}
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            name = metric._name + ("_total" if metric._type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            declared[name] = [metric._type, labels, metric._documentation]
    del listed["function_builder_info"]
    assert listed == declared


def test_every_value_of_a_label_is_explained():
    assert names("outcome") == {outcome.value for outcome in Outcome}
    assert names("end of a callback's attempt") == set(CallbackOutcome)
    assert names("phase") == {phase.value for phase in BuildPhase}
    assert names("state of a queued build") == set(State)
    failures = table("part that failed")
    assert {row[1].strip("`") for row in failures} == set(Failure)
    assert {row[0] for row in failures} == {", ".join(f"`{part}`" for part in Part)}
    reasons = {row[0].strip("`"): int(row[1]) for row in table("reason of a refusal")}
    assert reasons == {reason: int(code) for code, reason in REASONS.items()}


def test_every_alert_says_what_to_do():
    assert names("alert") == {alert["alert"] for alert in alerts()}


def test_the_links_to_the_charts_files_hold():
    root = Path(__file__).parents[2]
    links = re.findall(r"\]\(\.\./(chart/[^)]+)\)", PAGE)
    assert links
    for path in links:
        assert (root / path).is_file()
