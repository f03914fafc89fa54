"""Spans of the builder's own: what their collector is told, and what its absence costs."""

import sys
import time

import pytest
from structlog.testing import capture_logs

from function_builder.builds.phases import BuildPhase, Measures
from function_builder.server import run
from function_builder.server import spans as module
from function_builder.server.spans import Spans
from function_builder.server.tracing import forwarded
from tests.support import free_address
from tests.support.collector import running_collector

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
def told(monkeypatch):
    """Have a collector told of one request, however long that takes here."""
    monkeypatch.setattr(module, "_PATIENCE", 60)

    def tell(sampled: str = "01", *, outcome: str = "success"):
        with running_collector() as collector:
            spans = Spans(collector.endpoint + "/")
            measures = Measures(time.time_ns() - 10**9)
            parent = {"traceparent": f"00-{TRACE}-{PARENT}-{sampled}", "tracestate": "a=1"}
            with spans.trace(parent, measures) as trace:
                measures.end(BuildPhase.UPLOAD)
                trace.outcome = outcome
            spans.close()
            return trace, {span.name: span for span in collector.spans}

    return tell


def test_phases_are_below_the_request_and_that_is_below_its_client(told):
    trace, spans = told()
    top, phase = spans["POST /build"], spans["upload"]
    assert (top.trace_id, top.parent, phase.parent) == (TRACE, PARENT, top.id)
    assert phase.nanoseconds >= 10**9
    assert top.nanoseconds >= phase.nanoseconds
    assert top.attributes == {"function_builder.outcome": "success"}
    assert trace.id == TRACE
    assert trace.headers["traceparent"].startswith(f"00-{TRACE}-{top.id}-")
    assert trace.headers["tracestate"] == "a=1"


def test_a_request_that_crashed_says_so(told):
    assert told(outcome="")[1]["POST /build"].attributes["function_builder.outcome"] == "crashed"


def test_a_client_that_wants_no_spans_gets_none(told):
    trace, spans = told(sampled="00")
    assert not spans
    assert trace.headers["traceparent"].endswith("-00")


def test_a_collector_that_is_away_holds_nothing_up():
    spans = Spans(f"http://{free_address()}")
    with spans.trace({}, Measures(time.time_ns())) as trace:
        assert len(trace.id) == 32
    before = time.monotonic()
    spans.close()
    assert time.monotonic() - before < 30


async def test_without_opentelemetry_builds_go_on_and_the_log_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "function_builder.server.spans", None)
    with capture_logs() as logs:
        async with run._spans("http://collector") as tracing:
            assert tracing is forwarded
    assert "function-builder[otel]" in logs[0]["event"]
