"""What a builder tells its operator of each request: ids, log lines, metrics, traces."""

import asyncio
import socket
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.collector import running_collector
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
async def own_builder(tmp_path, buildkitd):
    """A builder of these tests alone: they read its counters."""
    async with running_builder(tmp_path / "builder", buildkitd, max_inflight="1") as builder:
        yield builder


def request(registry: str, step: str = "true", **files: str) -> bytes:
    dockerfile = f"FROM busybox\nCOPY . /x\nRUN {step}\n"
    return make_tar(
        {"Dockerfile": dockerfile, **files}, {"image": f"{registry}/telemetry/{len(step)}:1"}
    )


def post(builder: RunningBuilder, body: bytes, **changes: str) -> httpx2.Response:
    return httpx2.post(
        f"{builder.url}/build",
        content=body,
        headers=headers(body) | changes,
        timeout=60,
        verify=False,
    )


def streaming(builder: RunningBuilder, body: bytes):
    sent = headers(body, stream=True)
    return httpx2.stream(
        "POST", f"{builder.url}/build", content=body, headers=sent, timeout=60, verify=False
    )


def log_of(builder: RunningBuilder, build_id: str) -> list[dict[str, Any]]:
    return [line for line in builder.lines() if line.get("build") == build_id]


def metrics_of(builder: RunningBuilder) -> dict[str, float]:
    text = builder.metrics()
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def series_of(builder: RunningBuilder) -> set[str]:
    lines = builder.metrics().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


async def test_each_build_has_an_id_that_leads_to_its_log_lines(own_builder, registry):
    good = post(own_builder, request(registry))
    failed = post(own_builder, request(registry, "false"))
    refused = post(own_builder, request(registry), **{"X-Build-Signature": "sha256=00"})
    early = post(own_builder, request(registry), **{"Content-Encoding": "gzip"})
    invalid = make_tar({"Dockerfile": "FROM busybox"}, b"{")
    wrong = post(own_builder, invalid)
    answers = [good, failed, refused, early, wrong]
    assert [answer.status_code for answer in answers] == [200, 500, 401, 415, 400]
    ids = [answer.headers["x-build-id"] for answer in answers]
    assert len(set(ids)) == 5
    assert [good.json()["buildId"], failed.json()["buildId"]] == ids[:2]

    await until(lambda: log_of(own_builder, ids[1])[-1]["event"] == "build ended")
    *_, ended = lines = log_of(own_builder, ids[0])
    assert [line["event"] for line in lines] == ["build started", "build ended"]
    assert (ended["outcome"], ended["digest"]) == ("success", good.json()["digest"])
    assert ended["phases"].keys() >= {"upload", "check", "queue", "context", "build", "push"}
    assert sum(ended["phases"].values()) <= 2 * ended["seconds"]
    assert log_of(own_builder, ids[1])[-1]["outcome"] == "failed"
    reasons = [log_of(own_builder, each)[0]["reason"] for each in ids[2:]]
    assert reasons == ["signature", "compressed", "invalid"]
    assert "compressed" in log_of(own_builder, ids[3])[0]["error"]
    assert "JSON" in log_of(own_builder, ids[4])[0]["error"]


def test_a_busy_answer_has_an_id_too(own_builder, registry):
    body = request(registry, "sleep 600")
    with streaming(own_builder, body) as running:
        busy = post(own_builder, request(registry))
        assert (busy.status_code, running.status_code) == (429, 200)
        assert busy.headers["x-build-id"] != running.headers["x-build-id"]
        now = metrics_of(own_builder)
    assert now["function_builder_builds_in_progress"] == 1
    assert now["function_builder_slots_taken"] == now["function_builder_slots_limit"] == 1
    assert now["function_builder_ready"] == 0
    assert now["function_builder_refusals_total|busy"] == 1


async def test_what_builds_were_and_took_is_counted(own_builder, registry):
    text = "x" * 5000
    first = request(registry, "echo counted", text=text)
    changed = request(registry, "echo counted", text=text, more="y" * 100)
    assert [post(own_builder, body).status_code for body in (first, first, changed)] == [200] * 3
    assert post(own_builder, request(registry, "false # counted")).status_code == 500

    def counted(name: str) -> float:
        return metrics_of(own_builder)[f"function_builder_{name}"]

    await until(lambda: counted("builds_total|failed") == 1)
    assert counted("builds_total|success") == 3
    assert counted("build_duration_seconds_count|success") == 3
    assert counted("build_steps_total|failed") == 1
    # The second build found all it needs: at least its COPY and its RUN.
    assert counted("build_steps_total|cached") >= 2
    assert counted("build_steps_total|run") >= 2
    for phase in ("upload", "check", "queue", "context", "build"):
        assert counted(f"build_phase_duration_seconds_count|{phase}") == 4
    for phase in ("export", "push"):
        assert counted(f"build_phase_duration_seconds_count|{phase}") == 3
    assert counted("received_bytes_total") == len(first) * 2 + len(changed) + len(
        request(registry, "false # counted")
    )
    dockerfile = len("FROM busybox\nCOPY . /x\nRUN echo counted\n")
    failing = len("FROM busybox\nCOPY . /x\nRUN false # counted\n")
    assert counted("context_bytes_total") == 3 * (dockerfile + 5000) + 100 + failing
    # The text travelled once; a Dockerfile at most twice for each build, once as a part of all.
    assert 5000 < counted("context_sent_bytes_total") < 5000 + 100 + 10 * failing
    assert counted("context_requested_files_total") < counted("context_announced_entries_total")
    assert counted("content_record_paths") > 0
    assert counted("buildkit_up") == counted("ready") == counted("info|0.1.0") == 1
    assert counted("spool_size_bytes") >= counted("spool_available_bytes") > 0
    assert counted("buildkit_disk_bytes") >= 0
    assert metrics_of(own_builder)["process_resident_memory_bytes"] > 10**7


async def test_a_client_that_leaves_is_counted_as_such(own_builder, registry):
    body = request(registry, "sleep 601")
    with streaming(own_builder, body) as answer:
        next(answer.iter_lines())
    await until(lambda: metrics_of(own_builder)["function_builder_builds_total|cancelled"] == 1)
    host, port = own_builder.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
    await until(lambda: metrics_of(own_builder)["function_builder_refusals_total|gone"] == 1)
    await own_builder.until_requests(1, code="499")


async def test_every_line_of_the_log_is_json_whoever_wrote_it(own_builder):
    host, port = own_builder.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as peer:
        peer.sendall(b"this is no HTTP\r\n\r\n")
        assert peer.recv(100).startswith(b"HTTP/1.1 400")

    said = "Invalid HTTP request received."
    await until(lambda: said in [line["event"] for line in own_builder.lines()])
    assert all(line.keys() >= {"event", "level", "timestamp"} for line in own_builder.lines())


async def test_no_request_can_make_a_series_of_its_own(own_builder, registry):
    """Whatever is asked for, the labels are those that asking for anything else would have made."""

    def strange(http: httpx2.Client, number: int) -> None:
        for method in ("GET", "PUT", "DELETE", f"ODD{number}"):
            for path in (f"/{number}", f"/build/{number}?{number}", "/build"):
                http.request(method, path)
        body = make_tar({"Dockerfile": "FROM busybox"}, {"image": f"h{number}/i:{number}"})
        odd = {"X-Build-Signature": str(number), "User-Agent": str(number)}
        http.post("/build", content=body, headers=odd)
        image = f"{registry}/series/{number}:{number}"
        body = make_tar({"Dockerfile": f"FROM busybox\nENV a={number}"}, {"image": image})
        odd = {"Accept": f"text/{number}", "Content-Type": f"a/{number}"}
        assert http.post("/build", content=body, headers=headers(body) | odd).status_code == 200

    with httpx2.Client(base_url=own_builder.url, timeout=60, verify=False) as http:
        strange(http, 1)
        await own_builder.until_requests(1, code="200")
        series = series_of(own_builder)
        for number in range(2, 5):
            strange(http, number)
    assert series_of(own_builder) == series
    assert len(series) < 600


def test_a_trace_is_followed_in_the_log(own_builder, registry):
    answer = post(own_builder, request(registry), traceparent=TRACEPARENT)
    lines = log_of(own_builder, answer.headers["x-build-id"])
    assert {line["trace_id"] for line in lines} == {TRACE}
    malformed = post(own_builder, request(registry), traceparent="00-1-2-3")
    assert all(
        "trace_id" not in line for line in log_of(own_builder, malformed.headers["x-build-id"])
    )


@pytest.mark.parametrize("spans_of_ours", [True, False], ids=["with_spans", "forwarded"])
async def test_spans_of_builder_and_buildkit_are_one_trace(
    spans_of_ours, tmp_path, fresh_buildkitd, registry, monkeypatch
):
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        daemon = await fresh_buildkitd()
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint} if spans_of_ours else {}
        async with running_builder(tmp_path / "builder", daemon.address, **settings) as builder:
            answer = await asyncio.to_thread(
                post, builder, request(registry, "echo spans"), traceparent=TRACEPARENT
            )
            assert answer.status_code == 200, answer.text
        # The builder's end sends what is left; BuildKit sends every five seconds.
        solve = "moby.buildkit.v1.Control/Solve"
        await until(lambda: any(span.name == solve for span in collector.spans))
        ours = {span.name: span for span in collector.spans if span.service == "function-builder"}
        theirs = {span.name: span for span in collector.spans if span.trace_id == TRACE}
        if spans_of_ours:
            top = ours["POST /build"]
            assert (top.trace_id, top.parent) == (TRACE, PARENT)
            assert top.attributes["function_builder.outcome"] == "success"
            phases = {"upload", "check", "wait", "queue", "context", "build", "export", "push"}
            assert ours.keys() == {"POST /build"} | phases
            assert all(ours[phase].parent == top.id for phase in phases)
            assert all(0 <= ours[phase].nanoseconds <= top.nanoseconds for phase in phases)
            assert theirs[solve].parent == top.id
        else:
            assert not ours
            assert theirs[solve].parent == PARENT
