"""The Grafana dashboard is what Grafana reads; Grafana itself is not asked."""

import json
from itertools import pairwise
from pathlib import Path

import jsonschema_rs
import pytest

from function_builder.queue.access import Access
from function_builder.queue.jetstream import JetStream
from function_builder.server.metrics import read_state
from function_builder.server.queue_metrics import QueueMetrics
from function_builder.server.usage import TenantsUsage
from tests.chart.monitoring.queries import alerts, dashboard, dashboard_queries, selectors
from tests.support.services import idle_service

SCHEMA = json.loads((Path(__file__).parent / "dashboard.schema.json").read_text())


def test_it_follows_the_schema():
    errors = [str(error) for error in jsonschema_rs.validator_for(SCHEMA).iter_errors(dashboard())]
    assert not errors, errors[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda panel: panel.pop("targets"),
        lambda panel: panel["targets"][0].pop("expr"),
        lambda panel: panel["targets"].clear(),
        lambda panel: panel["gridPos"].update(w=25),
        lambda panel: panel["fieldConfig"]["defaults"].update(unit="parsecs"),
        lambda panel: panel.update(type="graph"),
        lambda panel: panel.update(datasource="Prometheus"),
        lambda panel: panel.update(unknown=True),
    ],
)
def test_the_schema_sees_damage(damage):
    document = dashboard()
    damage(document["panels"][1])
    assert not jsonschema_rs.is_valid(SCHEMA, document)


def test_panels_neither_overlap_nor_share_an_id():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for before, after in pairwise(places):
        below = after["y"] >= before["y"] + before["h"]
        assert below or (after["y"] == before["y"] and after["x"] >= before["x"] + before["w"])


def test_pro_builders_three_panels_come_first():
    titles = [panel["title"] for panel in dashboard()["panels"] if panel["type"] != "row"]
    assert titles[:3] == [
        "Average build duration",
        "Builds in progress",
        "Invocation rate by status code",
    ]


async def test_every_query_asks_for_metrics_that_there_are(tmp_path):
    service = idle_service(tmp_path)
    read_state(service)
    QueueMetrics(service.metrics).show(JetStream(Access(url="nats://127.0.0.1:9")))
    TenantsUsage(service.metrics, service.slots).count_received("acme", 1)
    with service.slots.turn("acme"):
        await service.metrics.refreshers[-1]()
    service.metrics.tenant_seconds.labels("acme")
    service.metrics.oidc_keys_age.labels("https://issuer.example.com")
    known = {
        sample.name for family in service.metrics.registry.collect() for sample in family.samples
    }
    known |= {"http_requests_total"}
    known |= {f"http_request_duration_seconds_{part}" for part in ("bucket", "count", "sum")}
    queries = [*dashboard_queries(rate_interval="1m"), *(alert["expr"] for alert in alerts())]
    asked = {name.partition("{")[0] for query in queries for name in selectors(query)}
    assert asked <= known
