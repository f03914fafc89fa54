"""Metrics: their names, and the bounds of their labels."""

import asyncio
import re
from typing import Any

import httpx2
import pytest
from prometheus_client import generate_latest

from function_builder.server.app import create_app
from function_builder.server.builds import BUILD_ID_HEADER
from function_builder.server.metrics import CountRequests, metrics_app, read_state
from function_builder.server.prometheus import Metrics
from function_builder.server.service import Service
from tests.support.services import idle_service

UNITS = ("_total", "_seconds", "_bytes", "_info")
COUNTS = {"ready", "builds_in_progress", "slots_taken", "slots_limit", "uploads_in_progress"} | {
    "buildkit_up",
    "buildkit_daemons",
    "builds_waiting",
    "content_record_paths",
    "uploads_limit",
    "tasks",
    "queue_up",
    "queue_builds",
    "callbacks_waiting",
    "tenants",
    "tenants_file_stale",
}


@pytest.fixture
async def service(tmp_path) -> Service:
    service = idle_service(tmp_path)
    read_state(service)
    return service


def client(app: Any) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://builder")


def series(metrics: Metrics) -> set[str]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


async def test_names_follow_prometheus_conventions(service):
    service.metrics.register_queue()
    for family in service.metrics.registry.collect():
        assert family.documentation.endswith((".", "information.")) or "process" in family.name
        name = family.name + ("_total" if family.type == "counter" else "")
        if name.startswith("function_builder_"):
            known = name.removeprefix("function_builder_") in COUNTS
            assert known or name.endswith(UNITS), name


async def test_every_label_is_there_before_anything_happens(service):
    """A rate over a series that is born with its first event would miss that event."""
    assert {
        'function_builder_builds_total{outcome="lost"}',
        'function_builder_refusals_total{reason="signature"}',
        'function_builder_build_steps_total{result="cached"}',
        'function_builder_build_phase_duration_seconds_count{phase="push"}',
    } <= series(service.metrics)


async def test_requests_are_labelled_out_of_fixed_sets(service):
    async with client(create_app(service)) as http:

        async def ask(number: int) -> None:
            for method in ("GET", "POST", "BREW", f"M{number}"):
                for path in ("/build", "/build/", "/healthz", f"/{number}", f"/build/{number}"):
                    await http.request(method, f"{path}?{number}")

        await ask(0)
        before = series(service.metrics)
        for number in range(1, 20):
            await ask(number)
        assert series(service.metrics) == before
    paths = {line.split('path="')[1].split('"')[0] for line in before if 'path="' in line}
    methods = {line.split('method="')[1].split('"')[0] for line in before if 'method="' in line}
    assert paths == {"/build", "/healthz", "other"}
    assert methods == {"GET", "POST", "other"}


async def test_a_crash_is_counted_and_has_the_builds_id(service, monkeypatch):
    def broken() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("function_builder.server.exchange.Spool", broken)
    async with client(create_app(service)) as http:
        answer = await http.post("/build", content=b"")
    assert answer.status_code == 500
    assert len(answer.headers[BUILD_ID_HEADER]) == 24
    counted = service.metrics.requests.labels("500", "POST", "/build")
    assert counted._value.get() == 1
    assert service.metrics.in_flight._value.get() == 0


async def test_a_request_that_nobody_waits_for_is_a_499():
    metrics = Metrics()

    async def silent(*_: object) -> None:
        await asyncio.sleep(0)

    counting = CountRequests(silent, metrics, {"/build": re.compile("/build")})

    async def never(*_: object) -> Any:
        raise AssertionError("nobody speaks")

    await counting({"type": "http", "method": "POST", "path": "/build"}, never, never)
    assert metrics.requests.labels("499", "POST", "/build")._value.get() == 1


async def test_the_scrape_is_prometheus_text(service):
    async with client(metrics_app(service.metrics)) as http:
        answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "function_builder_slots_limit 0.0" in answer.text
    assert "function_builder_ready 0.0" in answer.text
    assert "function_builder_buildkit_disk_bytes NaN" in answer.text
