"""The chart's queries: what its dashboard and alerts ask of Prometheus."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

_FILES = Path(__file__).parents[3] / "chart" / "function-builder" / "files"
RULES = _FILES / "rules.yml"
RULE_TESTS = Path(__file__).with_name("rules.test.yml")
DASHBOARD = _FILES / "dashboard.json"
_SELECTOR = re.compile(r"\b(?:function_builder|http|process)_\w+(?:\{[^}]*\})?")


def dashboard() -> dict[str, Any]:
    document = json.loads(DASHBOARD.read_text())
    assert isinstance(document, dict)
    return document


def dashboard_queries(*, rate_interval: str) -> list[str]:
    """Each panel's queries, with Grafana's variables as Grafana fills them in for «All»."""
    variables = {"$__rate_interval": rate_interval, "$job": ".*", "$pod": ".*"}
    queries = [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])
    ]
    for variable, value in variables.items():
        queries = [query.replace(variable, value) for query in queries]
    assert not any("$" in query for query in queries)
    return queries


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def selectors(query: str) -> set[str]:
    """The series that a query reads: what must be there for it to mean anything."""
    return set(_SELECTOR.findall(query))
