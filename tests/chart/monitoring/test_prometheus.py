"""A real Prometheus scrapes a running builder and answers what dashboard and alerts ask."""

import asyncio
import math
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from function_builder.engine import NatsServer
from tests.chart.monitoring.queries import (
    RULE_TESTS,
    RULES,
    alerts,
    dashboard,
    dashboard_queries,
    selectors,
)
from tests.support import free_address, until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import headers, make_tar

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus here: apt-get install prometheus"
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here: apt-get install prometheus"
)


@dataclass
class Prometheus:
    url: str

    def get(self, path: str, **params: str) -> Any:
        answer = httpx2.get(f"{self.url}/api/v1/{path}", params=params, timeout=60, verify=False)
        assert answer.status_code == 200, (params, answer.text)
        return answer.json()["data"]

    def values(self, query: str) -> list[float]:
        return [float(series["value"][1]) for series in self.get("query", query=query)["result"]]

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def is_at_rest(self, rule: dict[str, Any]) -> bool:
        """Whether a rule is quiet, and not for want of what it asks for."""
        state = (rule["health"], rule["state"])
        return state == ("ok", "inactive") and all(map(self.values, selectors(rule["query"])))

    def has_data(self, query: str) -> bool:
        values = self.values(query)
        return bool(values) and not any(map(math.isnan, values))


@asynccontextmanager
async def running_prometheus(root: Path, builder: RunningBuilder) -> AsyncIterator[Prometheus]:
    """Scrapes a builder each second, and goes by our rules."""
    target = {"targets": [builder.metrics_url.removeprefix("http://")], "labels": {"pod": "b-0"}}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "function-builder", "static_configs": [target]}],
    }
    (root / "prometheus.yml").write_text(yaml.safe_dump(config))
    listen = free_address()
    with (root / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={root / 'prometheus.yml'}",
            f"--storage.tsdb.path={root / 'data'}",
            f"--web.listen-address={listen}",
            stdout=log,
            stderr=log,
        )
    try:
        prometheus = Prometheus(f"http://{listen}")
        await until(lambda: _answers(prometheus.url))
        yield prometheus
    finally:
        process.terminate()
        async with asyncio.timeout(60):
            await process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url + "/-/ready", timeout=5, verify=False).status_code == 200
    except httpx2.TransportError:
        return False


def build(builder: RunningBuilder, registry: str, step: str, *, name: str = "m") -> int:
    body = make_tar(
        {"Dockerfile": f"FROM busybox\nCOPY text .\nRUN {step}\n", "text": step},
        {"image": f"{registry}/monitoring/{name}:1"},
    )
    sent = headers(body)
    return httpx2.post(
        builder.url + "/build", content=body, headers=sent, timeout=60, verify=False
    ).status_code


@needs_prometheus
@pytest.mark.integration
@pytest.mark.timeout(300)
async def test_every_query_and_every_alert_has_its_data(tmp_path, buildkitd, registry):
    store = (tmp_path / "store").as_uri()
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text(
        "tenants: {acme: {oidc: [{issuer: 'http://127.0.0.1:9', audience: b, claims: {a: b}}]}}"
    )
    async with (
        NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as nats,
        running_builder(
            tmp_path / "builder",
            buildkitd,
            nats_url=nats.url,
            store_url=store,
            tenants_file=str(tenants),
        ) as builder,
        running_prometheus(tmp_path, builder) as prometheus,
    ):
        await until(lambda: prometheus.values("function_builder_ready") == [1])
        queries = dashboard_queries(rate_interval="1m")
        rounds = 0
        # A rate needs two scrapes, and an average something that happened between them.
        while silent := [query for query in queries if not prometheus.has_data(query)]:
            assert rounds < 20, silent
            rounds += 1
            assert build(builder, registry, f"echo {rounds}") == 200
            assert build(builder, registry, f"echo {rounds}") == 200
            assert build(builder, registry, "false") == 500
            await asyncio.sleep(1)  # the scrapes' interval

        for variable in dashboard()["templating"]["list"][1:]:
            assert prometheus.get(f"label/{variable['name']}/values")

        assert [rule["name"] for rule in prometheus.rules()] == [each["alert"] for each in alerts()]
        # A scrape that fails, or comes late, ends every series until the next.
        await until(lambda: all(map(prometheus.is_at_rest, prometheus.rules())))

        counted = 'function_builder_builds_total{outcome=~"success|failed"}'
        await until(lambda: sorted(prometheus.values(counted)) == [rounds, 2 * rounds])


@needs_promtool
@pytest.mark.integration
async def test_promtool_finds_nothing_wrong_with_the_metrics(tmp_path, buildkitd, registry):
    async with (
        NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as nats,
        running_builder(
            tmp_path / "builder",
            buildkitd,
            nats_url=nats.url,
            store_url=(tmp_path / "store").as_uri(),
        ) as builder,
    ):
        assert build(builder, registry, "echo lint") == 200
        metrics = builder.metrics().encode()
    lint = ["promtool", "check", "metrics"]
    run = await asyncio.to_thread(subprocess.run, lint, input=metrics, capture_output=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


@needs_promtool
def test_the_rules_are_well_formed():
    subprocess.run(["promtool", "check", "rules", RULES], check=True, capture_output=True)


@needs_promtool
def test_the_rules_alarm_when_they_should_and_only_then():
    run = subprocess.run(
        ["promtool", "test", "rules", RULE_TESTS], check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_each_alert_is_tested_and_explained():
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    fired = {
        expected["alertname"]
        for test in tests
        for expected in test["alert_rule_test"]
        if expected.get("exp_alerts")
    }
    assert fired == {alert["alert"] for alert in alerts()}
