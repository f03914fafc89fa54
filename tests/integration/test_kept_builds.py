"""Builds that outlive their connection, as their HTTP clients use them, on a real queue."""

import json
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from function_builder import server
from function_builder.contract.builds import parse_build_info
from function_builder.contract.reads import sign_read
from function_builder.contract.result import BuildResult, BuildStatus, parse_result
from function_builder.contract.sse import EventParser
from function_builder.engine import NatsServer
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import SECRET, headers, make_tar

pytestmark = pytest.mark.integration

READERS = 50
BOUNDED = settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
# The first takes 501 and 503 for a crash.
NOT_OURS = [not_a_server_error, positive_data_acceptance, negative_data_rejection]
TINY = make_tar({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"}, {"skipPush": True})
api = schemathesis.openapi.from_path(Path(server.__file__).with_name("openapi.yaml"))
ASYNC = {"Prefer": "respond-async"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kept(
    buildkitd: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningBuilder]:
    root = tmp_path_factory.mktemp("kept")
    async with NatsServer(root / "nats", log=root / "nats.log") as server:
        queue = {"nats_url": server.url, "store_url": (root / "store").as_uri()}
        async with running_builder(root / "b", buildkitd, **queue) as builder:
            yield builder


def body(command: str) -> bytes:
    return make_tar({"Dockerfile": f"FROM busybox\nRUN {command}\n"}, {"skipPush": True})


def post(builder: RunningBuilder, tar: bytes, **more: str) -> httpx2.Response:
    sent = headers(tar) | {name.replace("_", "-"): value for name, value in more.items()}
    return httpx2.post(f"{builder.url}/build", content=tar, headers=sent, timeout=90, verify=False)


def signed(method: str, target: str) -> dict[str, str]:
    return sign_read(SECRET.encode(), method, target, time.time())


def get(builder: RunningBuilder, target: str, **more: str) -> httpx2.Response:
    sent = signed("GET", target) | {name.replace("_", "-"): value for name, value in more.items()}
    return httpx2.get(builder.url + target, headers=sent, timeout=90, verify=False)


def results(answer: httpx2.Response) -> tuple[list[str], BuildResult]:
    """The log of a stream, and its last line."""
    *progress, last = map(parse_result, answer.content.splitlines())
    return [line for each in progress for line in each.log], last


@pytest.mark.parametrize("command", ["echo said", "false"])
def test_a_key_gives_one_build_in_each_form_of_an_answer(kept, command):
    tar = body(f"{command} && echo {time.time()}")
    key = f"key {command} {time.time()}"
    whole = post(kept, tar, idempotency_key=f'"{key}"')
    assert whole.status_code == (500 if command == "false" else 200)
    result = parse_result(whole.content)
    assert any("said" in line for line in result.log) is (command != "false")
    log, last = results(post(kept, tar, idempotency_key=f'"{key}"', accept="application/x-ndjson"))
    assert log == list(result.log)
    assert (last.status, last.build_id, last.error) == (
        result.status,
        result.build_id,
        result.error,
    )
    queued = post(kept, tar, idempotency_key=f'"{key}"', **ASYNC)
    assert (queued.status_code, queued.json()["buildId"]) == (202, result.build_id)
    info = parse_build_info(get(kept, f"/builds/{result.build_id}").content)
    assert info.attempt == 1
    assert post(kept, body("true"), idempotency_key=f'"{key}"').status_code == 422


def test_a_client_that_hangs_up_gets_its_build_by_the_same_key(kept):
    tar = body(f"echo {time.time()} && sleep 2 && echo done")
    sent = headers(tar, stream=True) | {"Idempotency-Key": f"hang-up-{time.time()}"}
    with httpx2.stream(
        "POST", f"{kept.url}/build", content=tar, headers=sent, timeout=60, verify=False
    ) as first:
        build_id = first.headers["x-build-id"]
        for line in first.iter_lines():
            if json.loads(line).get("log"):
                break
    again = httpx2.post(f"{kept.url}/build", content=tar, headers=sent, timeout=60, verify=False)
    assert again.headers["x-build-id"] == build_id
    log, last = results(again)
    assert (last.status, last.build_id) == (BuildStatus.SUCCESS, build_id)
    assert sum(re.fullmatch("l: .* done", line) is not None for line in log) == 1


def test_events_and_lines_are_one_log_and_both_resume(kept):
    command = f"echo {time.time()}; for i in $(seq 300); do echo line $i; done"
    build_id = post(kept, body(command), **ASYNC).json()["buildId"]
    target = f"/builds/{build_id}/log"
    followed = get(kept, target, accept="text/event-stream")
    *events, end = EventParser().receive_data(followed.content)
    assert [event.id for event in events] == [str(n) for n in range(1, len(events) + 1)]
    assert end.name == "end"
    assert parse_build_info(end.data).state.value == "success"
    log, last = results(get(kept, target))
    assert log == [event.data for event in events]
    assert last.status is BuildStatus.SUCCESS
    half = len(log) // 2
    assert results(get(kept, f"{target}?after={half}"))[0] == log[half:]
    resumed = get(kept, target, accept="text/event-stream", last_event_id=str(half))
    assert [event.data for event in EventParser().receive_data(resumed.content)][:-1] == log[half:]


def test_readers_that_do_not_read_have_a_part_of_the_log_in_memory(kept):
    """The whole log, decoded, takes more than twice its size."""
    command = f"echo {time.time()}; for i in $(seq 12000); do echo $i {'x' * 100}; done"
    build_id = post(kept, body(command), **ASYNC).json()["buildId"]
    target = f"/builds/{build_id}/log"
    log, last = results(get(kept, target))
    assert last.status is BuildStatus.SUCCESS
    size = sum(map(len, log))
    assert size > 1_000_000
    before = resident(kept.process.pid)
    address = urlsplit(kept.url)
    head = "".join(f"{name}: {value}\r\n" for name, value in signed("GET", target).items())
    sockets = [
        socket.create_connection((address.hostname or "", address.port or 0))
        for _ in range(READERS)
    ]
    try:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.sendall(f"GET {target} HTTP/1.1\r\nHost: builder\r\n{head}\r\n".encode())
        for each in sockets:
            each.settimeout(60)
            assert each.recv(12) == b"HTTP/1.1 200"
        # One that reads is not delayed by those that do not.
        assert results(get(kept, target))[0] == log
        grown = resident(kept.process.pid) - before
    finally:
        for each in sockets:
            each.close()
    assert grown < READERS * size, f"{grown / READERS:.0f} bytes for each reader"


@api.include(path_regex="^/builds").parametrize()
@BOUNDED
def test_answers_of_a_real_queue_keep_to_the_document(case, kept):
    if "id" in (case.path_parameters or {}):
        case.path_parameters["id"] = post(kept, TINY, idempotency_key="tiny", **ASYNC).json()[
            "buildId"
        ]
    sent = case.as_transport_kwargs(base_url=kept.url)
    target = requests.Request(sent["method"], sent["url"], params=sent["params"]).prepare().path_url
    case.headers = {**(case.headers or {}), **signed(case.method, target)}
    answer = case.call(base_url=kept.url, timeout=60)
    assert answer.status_code != 401
    case.validate_response(answer, excluded_checks=NOT_OURS)


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
