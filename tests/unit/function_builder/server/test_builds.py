"""Builds that outlive their connection, over HTTP: 202, list, read, follow, cancel, retry."""

import asyncio
import dataclasses
import hashlib
import json
import time
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers
from structlog.testing import capture_logs

from function_builder.contract.answer_signature import build_answer
from function_builder.contract.builds import BuildState, new_id, parse_build_info
from function_builder.contract.callback_url import CallbackHosts
from function_builder.contract.errors import Refusal
from function_builder.contract.log import StepText
from function_builder.contract.reads import sign_read
from function_builder.contract.result import MAX_LINE_BYTES, BuildStatus, parse_result
from function_builder.contract.sse import Event, EventParser
from function_builder.contract.timestamp import stamp
from function_builder.server.app import create_app
from function_builder.server.asking import read_asked
from function_builder.server.service import Service
from tests.support import until
from tests.support.memory_builds import MemoryBuilds
from tests.support.requests import SECRET, headers, make_tar
from tests.support.services import idle_service

BODY = make_tar({"Dockerfile": "FROM scratch\n"}, {"image": "R/f:1"})
OTHER = make_tar({"Dockerfile": "FROM busybox\n"}, {"image": "r/f:1"})
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def builds() -> MemoryBuilds:
    return MemoryBuilds()


@pytest.fixture
async def service(tmp_path, builds) -> Service:
    (tmp_path / "payload-secret").write_text(SECRET)
    service = idle_service(tmp_path, disable_hmac=False, secret_mount_path=tmp_path)
    service.builds = builds
    return service


def client(service: Service) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(create_app(service), raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://builder")


async def post(service: Service, body: bytes = BODY, **more: str) -> httpx2.Response:
    sent = {name.replace("_", "-"): value for name, value in more.items()}
    async with client(service) as http:
        return await http.post("/build", content=body, headers=headers(body) | sent)


async def ask(
    service: Service, target: str, method: str = "GET", *, at: float | None = None, **more: str
) -> httpx2.Response:
    """A signed request without a body."""
    signed = sign_read(SECRET.encode(), method, target, time.time() if at is None else at)
    sent = {name.replace("_", "-"): value for name, value in more.items()}
    async with client(service) as http:
        return await http.request(method, target, headers=signed | sent)


async def submitted(service: Service, **more: str) -> str:
    answer = await post(service, BODY, prefer="respond-async", **more)
    assert answer.status_code == 202
    build_id = answer.json()["buildId"]
    assert isinstance(build_id, str)
    return build_id


def is_problem(answer: httpx2.Response, status: int) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (answer.status_code, document["status"]) == (status, status)
    assert document["title"]
    detail = document["detail"]
    assert isinstance(detail, str)
    return detail


async def test_a_request_that_asks_for_it_is_answered_once_it_is_queued(service, builds):
    answer = await post(service, prefer="wait=10, respond-async; x=1")
    build_id = answer.json()["buildId"]
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/builds/{build_id}"
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.headers["x-build-id"] == answer.headers["x-call-id"] == build_id
    info = parse_build_info(answer.content)
    assert (info.state, info.position) == (BuildState.QUEUED, 1)
    (submission,) = builds.submissions
    assert (submission.id, submission.image, submission.repository) == (build_id, "r/f:1", "r/f")
    assert submission.created == pytest.approx(time.time(), abs=60)
    assert service.slots.taken == service.uploads.taken == service.space.reserved == 0
    sent = headers(BODY)
    assert build_answer(SECRET.encode(), sent["X-Build-Signature"], "").proves(answer.content)
    assert (await ask(service, answer.headers["location"])).json()["buildId"] == build_id


@pytest.mark.parametrize(
    "prefer",
    ["", "wait=5", "respond-sync", "x=respond-async", '"respond-async"', 'a="x, respond-async, y"'],
)
async def test_other_preferences_are_never_a_202(service, prefer):
    answer = await post(service, prefer=prefer)
    assert answer.status_code == 503  # BuildKit is not there
    assert "preference-applied" not in answer.headers


@pytest.mark.parametrize(
    "asked",
    [ASYNC, {"X-Callback-Url": "https://hooks.example.com/"}, {"Idempotency-Key": "a"}],
    ids=lambda asked: next(iter(asked)),
)
async def test_without_a_queue_what_needs_one_is_a_501_that_names_the_setting(service, asked):
    service.builds = None
    async with client(service) as http:
        answer = await http.post("/build", content=BODY, headers=headers(BODY) | asked)
    assert (answer.status_code, answer.json()["status"]) == (501, "failed")
    assert "nats_url" in answer.json()["error"]
    for method, target in (
        ("GET", "/builds"),
        ("GET", f"/builds/{new_id()}"),
        ("GET", f"/builds/{new_id()}/log"),
        ("DELETE", f"/builds/{new_id()}"),
        ("POST", f"/builds/{new_id()}/retry"),
    ):
        assert "nats_url" in is_problem(await ask(service, target, method), 501)


@pytest.mark.parametrize(
    ("body", "status"), [(b"no tar", 400), (make_tar({"x": ""}, {"image": "r/f:1"}), 400)]
)
async def test_a_body_that_fails_its_checks_is_refused_and_not_queued(
    service, builds, body, status
):
    answer = await post(service, body, prefer="respond-async")
    assert answer.status_code == status
    async with client(service) as http:
        unsigned = await http.post("/build", content=BODY, headers=ASYNC)
    assert unsigned.status_code == 401
    assert builds.submissions == []


@pytest.mark.parametrize("status", [503, 507])
async def test_what_the_queue_refuses_is_not_acknowledged(service, builds, status):
    builds.broken = Refusal(status, "the queue is away")
    answer = await post(service, prefer="respond-async")
    assert answer.status_code == status
    assert answer.json()["error"] == "the queue is away"
    assert "location" not in answer.headers
    assert answer.headers["retry-after"]


async def test_a_callback_is_checked_before_anything_is_queued(service, builds):
    url = "https://hooks.example.com/built?x=1"
    refused = await post(service, x_callback_url=url)
    assert refused.status_code == 501
    assert "callback_hosts" in refused.json()["error"]
    service.settings = dataclasses.replace(
        service.settings, callback_hosts=CallbackHosts.parse("hooks.example.com")
    )
    for other in ("https://example.com/", "http://127.0.0.1/", "ftp://hooks.example.com/", "x"):
        assert (await post(service, x_callback_url=other)).status_code == 400
    assert (
        await post(service, x_callback_url=url, x_callback_events="build.exploded")
    ).status_code == 400
    assert builds.submissions == []
    answer = await post(service, x_callback_url=url, x_callback_events="build.started")
    assert answer.status_code == 202
    assert builds.submissions[0].callback == (url, ("build.started",))


@pytest.mark.parametrize("second", ["key-1", '"key-1"', ' "key-1";x=1 '])
async def test_a_key_makes_a_repetition_the_same_build(service, builds, second):
    build_id = await submitted(service, idempotency_key='"key-1"')
    again = await post(service, prefer="respond-async", idempotency_key=second)
    assert again.status_code == 202
    assert again.json()["buildId"] == again.headers["x-build-id"] == build_id
    other = await post(service, OTHER, prefer="respond-async", idempotency_key=second)
    assert other.status_code == 422
    assert other.json()["status"] == "failed"
    (submission,) = builds.submissions
    assert submission.idempotency == ("key-1", hashlib.sha256(BODY).digest())


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255))
@settings(deadline=None)
def test_a_quoted_key_is_any_printable_text(text: str):
    quoted = '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))
    asked = read_asked(Headers({"Idempotency-Key": quoted}), None, has_queue=True)  # type: ignore[arg-type]
    assert asked.key == text
    assert asked.queued
    assert not asked.asynchronous


@pytest.mark.parametrize("key", ["", '""', '"', '"a', "a b", "\x7f", "é", "a" * 256, '"\\a"'])
def test_a_key_that_is_none_is_refused(key: str):
    with pytest.raises(Refusal, match="Idempotency-Key") as refused:
        read_asked(Headers({"Idempotency-Key": key}), None, has_queue=True)  # type: ignore[arg-type]
    assert refused.value.status == 400


async def test_a_request_says_how_long_it_waits_for_a_slot(service, builds):
    body = make_tar({"Dockerfile": "FROM scratch\n"}, {"image": "r/f:1", "queueTimeout": 1.5})
    await post(service, body, prefer="respond-async")
    assert builds.submissions[0].queue_timeout == 1.5


async def test_reads_are_signed_by_method_and_target_within_the_window(service):
    build_id = await submitted(service)
    target = f"/builds/{build_id}"
    assert (await ask(service, target)).status_code == 200
    assert (await ask(service, "/builds?status=queued&limit=5")).status_code == 200
    window = service.settings.read_window
    for at in (time.time() - window - 60, time.time() + window + 60):
        assert "read_window" in is_problem(await ask(service, target, at=at), 401)
    signed = sign_read(SECRET.encode(), "GET", target, time.time())
    late = stamp(SECRET.encode(), "sha256=00", time.time())
    async with client(service) as http:
        for wrong in (
            {},
            signed | {"X-Build-Timestamp": late},
            {"X-Build-Signature": signed["X-Build-Signature"]},
            sign_read(b"another secret", "GET", target, time.time()),
            {"Authorization": "Bearer x"},
        ):
            answer = await http.get(target, headers=wrong)
            is_problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await http.get(f"{target}?x=1", headers=signed)).status_code == 401
        assert (await http.get("/builds", headers=signed)).status_code == 401
        assert (await http.delete(target, headers=signed)).status_code == 401
    assert (await ask(service, target)).json()["status"] == "queued"


async def test_answers_to_signed_reads_are_signed(service):
    build_id = await submitted(service)
    for target in ("/builds", f"/builds/{build_id}"):
        signed = sign_read(SECRET.encode(), "GET", target, time.time())
        async with client(service) as http:
            answer = await http.get(target, headers=signed)
        values = (signed["X-Build-Signature"], signed["X-Build-Timestamp"])
        assert build_answer(SECRET.encode(), *values).proves(answer.content)


async def test_a_token_reads_and_cancels_its_build_alone(service):
    answer = await post(service, prefer="respond-async")
    build_id, token = answer.json()["buildId"], answer.json()["token"]
    other = await submitted(service)
    bearer = {"Authorization": f"Bearer {token}"}
    async with client(service) as http:
        assert (await http.get(f"/builds/{build_id}", headers=bearer)).status_code == 200
        is_problem(await http.get("/builds", headers=bearer), 401)
        is_problem(await http.get(f"/builds/{other}", headers=bearer), 401)
        is_problem(await http.delete(f"/builds/{other}", headers=bearer), 401)
        is_problem(await http.post(f"/builds/{build_id}/retry", headers=bearer), 403)
        cancelled = await http.delete(f"/builds/{build_id}", headers=bearer)
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
        log = await http.get(f"/builds/{build_id}/log", headers=bearer)
        assert parse_result(log.content.splitlines()[-1]).reason == "cancelled"
    (service.settings.spool_dir / "payload-secret").write_text("a new secret")
    async with client(service) as http:
        is_problem(await http.get(f"/builds/{build_id}", headers=bearer), 401)


async def test_an_unknown_build_and_another_tenants_are_the_same_404(service, builds):
    foreign = dataclasses.replace(
        parse_build_info((await post(service, prefer="respond-async")).content), id=new_id()
    )
    builds.record_start("another tenant", foreign)
    details = set()
    for build_id in (foreign.id, new_id(), "x", "x" * 24, "%2a", "%20"):
        for method, rest in (("GET", ""), ("GET", "/log"), ("DELETE", ""), ("POST", "/retry")):
            target = f"/builds/{build_id}{rest}"
            details.add(is_problem(await ask(service, target, method), 404))
    assert len(details) == 1
    listed = (await ask(service, "/builds")).json()["builds"]
    assert foreign.id not in {build["buildId"] for build in listed}


async def test_a_list_has_pages(service):
    ids = []
    for _ in range(3):
        ids.append(await submitted(service))
        await asyncio.sleep(0.002)
    first = (await ask(service, "/builds?limit=2")).json()
    assert [build["buildId"] for build in first["builds"]] == ids[:0:-1]
    rest = (await ask(service, f"/builds?limit=2&cursor={first['cursor']}")).json()
    assert [build["buildId"] for build in rest["builds"]] == ids[:1]
    assert "cursor" not in rest
    assert (await ask(service, "/builds?status=success,failed")).json()["builds"] == []
    assert len((await ask(service, "/builds?status=queued&repository=r/f")).json()["builds"]) == 3


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "limit=-1", "limit=%c2%b2", "status=x", "cursor=x"]
)
async def test_a_query_that_is_wrong_says_what_is(service, query):
    assert query.split("=")[0] in is_problem(await ask(service, f"/builds?{query}"), 400)


async def test_an_ended_build_is_not_cancelled(service, builds):
    build_id = await submitted(service)
    builds.end(build_id, BuildState.SUCCESS)
    assert "success" in is_problem(await ask(service, f"/builds/{build_id}", "DELETE"), 409)


async def test_a_repeated_request_to_retry_is_one_retry(service, builds):
    build_id = await submitted(service)
    target = f"/builds/{build_id}/retry"
    is_problem(await ask(service, target, "POST"), 409)
    builds.end(build_id, BuildState.FAILED, error="no")
    now = time.time()
    first, again = [await ask(service, target, "POST", at=now) for _ in range(2)]
    other = await ask(service, target, "POST", at=now + 1)
    assert first.status_code == 202
    assert first.json()["retryOf"] == build_id
    assert first.headers["location"] == again.headers["location"]
    assert first.headers["location"] != other.headers["location"]
    keyed = [await ask(service, target, "POST", idempotency_key="k") for _ in range(2)]
    assert keyed[0].json()["buildId"] == keyed[1].json()["buildId"]


async def test_a_log_is_ndjson_that_says_where_to_resume(service, builds):
    build_id = await submitted(service)
    lines = [StepText(f"line {number}", "1") for number in range(1, 251)]
    builds.write(build_id, [*lines, "x" * 100_000, "é\u2028" * 20_000])
    builds.end(build_id, BuildState.SUCCESS, digest="sha256:00")
    target = f"/builds/{build_id}/log"
    signed = sign_read(SECRET.encode(), "GET", target, time.time())
    async with client(service) as http:
        answer = await http.get(target, headers=signed)
    assert answer.headers["content-type"] == "application/x-ndjson"
    *progress, last = answer.content.splitlines(keepends=True)
    assert max(map(len, progress)) < MAX_LINE_BYTES
    documents = [json.loads(line) for line in progress]
    read = [line for document in documents for line in document["log"]]
    assert read[:250] == lines
    assert len(read) == 252
    seen = 0
    for document in documents:
        seen += len(document["log"])
        assert document["after"] == seen
    result = parse_result(last)
    assert (result.status, result.build_id) == (BuildStatus.SUCCESS, build_id)
    values = (signed["X-Build-Signature"], signed["X-Build-Timestamp"])
    answered = build_answer(SECRET.encode(), *values)
    answered.update(b"".join(progress))
    assert answered.proves(last)
    resumed = await ask(service, f"{target}?after=249")
    assert json.loads(resumed.content.splitlines()[0])["log"][0] == "line 250"


async def test_a_log_is_events_whose_ids_are_its_lines(service, builds):
    build_id = await submitted(service)
    builds.write(build_id, [f"line {number}" for number in range(1, 121)])
    builds.end(build_id, BuildState.FAILED, error="no")
    target = f"/builds/{build_id}/log"
    answer = await ask(service, target, accept="text/event-stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, end = EventParser().receive_data(answer.content)
    assert events == [Event(f"line {number}", id=str(number)) for number in range(1, 121)]
    assert (end.name, end.id) == ("end", "")
    info = parse_build_info(end.data)
    assert (info.id, info.state) == (build_id, BuildState.FAILED)
    resumed = await ask(
        service, f"{target}?after=3", accept="text/event-stream", last_event_id="118"
    )
    assert [event.id for event in EventParser().receive_data(resumed.content)] == ["119", "120", ""]


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 30, "²"])
async def test_a_number_of_a_line_that_is_none_is_refused(service, after):
    build_id = await submitted(service)
    target = f"/builds/{build_id}/log?after={after}"
    async with client(service) as http:
        raw = str(http.build_request("GET", target).url.raw_path, "ascii")
        signed = sign_read(SECRET.encode(), "GET", raw, time.time())
        assert "after" in is_problem(await http.get(target, headers=signed), 400)


class Reader:
    """An ASGI channel of a signed request; reads when a test lets it, and may go away."""

    def __init__(
        self, target: str, method: str = "GET", accept: str = "", body: bytes = b"", **more: str
    ) -> None:
        path, _, query = target.partition("?")
        proof = headers(body) if body else sign_read(SECRET.encode(), method, target, time.time())
        sent = proof | {"Accept": accept} | {k.replace("_", "-"): v for k, v in more.items()}
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in sent.items()],
        }
        self.pieces: list[bytes] = []
        self.status = 0
        self.ended = False
        self.gone = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self._body = [body]

    @property
    def read(self) -> bytes:
        return b"".join(self.pieces)

    async def run(self, service: Service) -> None:
        async def receive() -> dict[str, Any]:
            if self._body:
                return {"type": "http.request", "body": self._body.pop(), "more_body": False}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            else:
                self.pieces.append(message["body"])
                self.ended = not message.get("more_body", False)
            await self.reads.wait()

        await create_app(service)(self.scope, receive, send)


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
async def test_a_log_is_followed_until_the_end(service, builds, accept):
    build_id = await submitted(service)
    reader = Reader(f"/builds/{build_id}/log", accept=accept)
    following = asyncio.create_task(reader.run(service))
    builds.start(build_id)
    builds.write(build_id, ["one"])
    await until(lambda: b"one" in reader.read)
    builds.write(build_id, ["two"])
    await until(lambda: b"two" in reader.read)
    assert not following.done()
    builds.end(build_id, BuildState.SUCCESS)
    async with asyncio.timeout(60):
        await following
    assert reader.ended
    assert b'"status":"success"' in reader.read
    assert builds.followers == 0


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
async def test_a_quiet_log_has_heartbeats(service, builds, accept):
    builds.heartbeat = 0.001
    build_id = await submitted(service)
    reader = Reader(f"/builds/{build_id}/log", accept=accept)
    following = asyncio.create_task(reader.run(service))
    await until(lambda: len(reader.pieces) > 3)
    builds.end(build_id, BuildState.SUCCESS)
    async with asyncio.timeout(60):
        await following
    if accept == "text/event-stream":
        assert [event.name for event in EventParser().receive_data(reader.read)] == ["end"]
    else:
        *quiet, _ = map(parse_result, reader.read.splitlines())
        assert {result.status for result in quiet} == {BuildStatus.IN_PROGRESS}


async def test_a_reader_that_goes_away_stops_following_and_cancels_nothing(service, builds):
    build_id = await submitted(service)
    reader = Reader(f"/builds/{build_id}/log")
    following = asyncio.create_task(reader.run(service))
    await until(lambda: builds.followers)
    reader.gone.set()
    async with asyncio.timeout(60):
        await following
    assert builds.followers == 0
    assert not service.followers
    assert (await ask(service, f"/builds/{build_id}")).json()["status"] == "queued"


async def test_a_slow_reader_holds_one_batch_and_delays_no_other(service, builds):
    build_id = await submitted(service)
    builds.write(build_id, ["x" * 100 for _ in range(5000)])
    builds.end(build_id, BuildState.SUCCESS)
    slow = [Reader(f"/builds/{build_id}/log") for _ in range(20)]
    for reader in slow:
        reader.reads.clear()
    following = [asyncio.create_task(reader.run(service)) for reader in slow]
    await until(lambda: builds.followers == 0 and all(reader.status for reader in slow))
    other = Reader(f"/builds/{build_id}/log")
    async with asyncio.timeout(60):
        await other.run(service)
    assert other.read.count(b"x" * 100) == 5000
    assert sum(len(reader.read) for reader in slow) == 0
    for reader in slow:
        reader.gone.set()
        reader.reads.set()
    async with asyncio.timeout(60):
        await asyncio.gather(*following)


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
async def test_a_builder_that_ends_lets_its_readers_resume_elsewhere(service, builds, accept):
    build_id = await submitted(service)
    builds.write(build_id, ["one"])
    reader = Reader(f"/builds/{build_id}/log", accept=accept)
    following = asyncio.create_task(reader.run(service))
    await until(lambda: b"one" in reader.read)
    service.end("the builder is shutting down")
    async with asyncio.timeout(60):
        await following
    assert reader.ended
    assert b'"success"' not in reader.read
    assert b'"failed"' not in reader.read
    assert b"event: end" not in reader.read


@pytest.mark.parametrize("state", [BuildState.SUCCESS, BuildState.FAILED])
@pytest.mark.parametrize("accept", ["", "application/x-ndjson"])
async def test_a_synchronous_request_with_a_key_is_answered_by_its_build(
    service, builds, state, accept
):
    readers = [Reader("/build", "POST", accept, BODY, idempotency_key="key") for _ in range(2)]
    answering = [asyncio.create_task(reader.run(service)) for reader in readers]
    await until(lambda: builds.followers == 2)
    (submission,) = builds.submissions
    builds.start(submission.id)
    builds.write(submission.id, ["one", "two"])
    builds.end(submission.id, state, error="" if state is BuildState.SUCCESS else "no")
    async with asyncio.timeout(60):
        await asyncio.gather(*answering)
    late = Reader("/build", "POST", accept, BODY, idempotency_key="key")
    await late.run(service)
    for reader in (*readers, late):
        last = parse_result(reader.read.splitlines()[-1])
        assert (last.status.value, last.build_id) == (state.value, submission.id)
        assert reader.status == (200 if accept or state is BuildState.SUCCESS else 500)
        lines = [line for each in reader.read.splitlines() for line in parse_result(each).log]
        assert lines == ["one", "two"]


async def test_a_client_with_a_key_that_goes_away_leaves_its_build(service, builds):
    reader = Reader("/build", "POST", body=BODY, idempotency_key="key")
    answering = asyncio.create_task(reader.run(service))
    await until(lambda: builds.followers)
    reader.gone.set()
    async with asyncio.timeout(60):
        await answering
    (submission,) = builds.submissions
    found = await builds.get("default", submission.id)
    assert found is not None
    assert found.state is BuildState.QUEUED


@pytest.mark.parametrize("accept", ["", "application/x-ndjson"])
async def test_a_followed_build_of_a_builder_that_ends_has_a_last_line(service, builds, accept):
    reader = Reader("/build", "POST", accept, BODY, idempotency_key="key")
    answering = asyncio.create_task(reader.run(service))
    await until(lambda: builds.followers)
    service.end("the builder is shutting down")
    async with asyncio.timeout(60):
        await answering
    last = parse_result(reader.read.splitlines()[-1])
    assert last.status is BuildStatus.FAILED
    assert "Idempotency-Key" in last.error
    assert reader.status == (200 if accept else 503)


async def test_readiness_says_that_the_queue_is_away_and_stays(service, builds, monkeypatch):
    monkeypatch.setattr(type(service.pools.shared), "reachable", True)
    async with client(service) as http:
        assert (await http.get("/ready")).text == "OK"
        builds.broken = Refusal(503, "the queue cannot be reached")
        answer = await http.get("/ready")
    assert (answer.status_code, answer.text) == (
        200,
        "OK for synchronous builds: the queue cannot be reached",
    )


async def test_a_queue_that_goes_away_ends_a_log_without_its_last_line(service, builds):
    build_id = await submitted(service)
    reader = Reader(f"/builds/{build_id}/log")
    following = asyncio.create_task(reader.run(service))
    await until(lambda: builds.followers)
    builds.broken = Refusal(503, "the queue is away")
    builds.write(build_id, ["one"])
    async with asyncio.timeout(60):
        await following
    assert reader.read == b""
    is_problem(await ask(service, f"/builds/{build_id}"), 503)


async def test_synchronous_builds_are_listed(service, builds):
    answer = await post(service)
    (build,) = (await ask(service, "/builds")).json()["builds"]
    assert build["buildId"] == answer.headers["x-build-id"]
    assert (build["status"], build["asynchronous"], build["image"]) == ("failed", False, "r/f:1")
    assert build["error"] == answer.json()["error"]
    log = await ask(service, f"/builds/{build['buildId']}/log")
    assert parse_result(log.content.splitlines()[-1]).error == build["error"]


async def test_methods_are_those_of_the_routes(service, builds):
    build_id = await submitted(service)
    async with client(service) as http:
        for target, allowed in (
            ("/builds", {"GET", "HEAD"}),
            (f"/builds/{build_id}", {"DELETE", "GET", "HEAD"}),
            (f"/builds/{build_id}/log", {"GET", "HEAD"}),
            (f"/builds/{build_id}/retry", {"POST"}),
        ):
            for method in ("OPTIONS", "PUT"):
                answer = await http.request(method, target)
                is_problem(answer, 405)
                assert set(answer.headers["allow"].split(", ")) == allowed
        is_problem(await http.get(f"/builds/{build_id}/x"), 404)
    for target in ("/builds", f"/builds/{build_id}", f"/builds/{build_id}/log"):
        answer = await ask(service, target, "HEAD")
        assert answer.status_code == 200
    assert builds.followers == 0


async def test_requests_are_labelled_by_route(service):
    await submitted(service)
    for number in range(5):
        await ask(service, f"/builds/{new_id()}")
        await ask(service, f"/builds/{number}/log")
        await ask(service, f"/builds/{number}/x")
    paths = {
        sample.labels["path"]
        for metric in service.metrics.requests.collect()
        for sample in metric.samples
    }
    assert paths == {"/build", "/builds/{id}", "/builds/{id}/log", "other"}


async def test_no_token_is_in_the_log(service):
    with capture_logs() as log:
        answer = await post(service, prefer="respond-async")
        build_id, token = answer.json()["buildId"], answer.json()["token"]
        async with client(service) as http:
            bearer = {"Authorization": f"Bearer {token}"}
            await http.delete(f"/builds/{build_id}", headers=bearer)
    assert [line["event"] for line in log] == ["build queued", "build cancelled by request"]
    assert log[1]["by"] == "token"
    assert token not in str(log)


async def test_without_signatures_every_client_may_read(tmp_path, builds):
    service = idle_service(tmp_path)
    service.builds = builds
    async with client(service) as http:
        answer = await http.post("/build", content=BODY, headers=ASYNC)
        assert "token" not in answer.json()
        target = answer.headers["location"]
        for headers_ in ({}, {"Authorization": "Bearer x"}):
            assert (await http.get(target, headers=headers_)).status_code == 200
        assert (await http.delete(target)).json()["status"] == "cancelled"
        first, second = [await http.post(f"{target}/retry") for _ in range(2)]
        assert first.json()["buildId"] != second.json()["buildId"]


async def test_a_draining_builder_queues_nothing(service, builds):
    build_id = await submitted(service)
    builds.end(build_id, BuildState.FAILED)
    service.end("the builder is shutting down")
    assert (await post(service, prefer="respond-async")).status_code == 503
    is_problem(await ask(service, f"/builds/{build_id}/retry", "POST"), 503)
    assert len(builds.submissions) == 1


@pytest.mark.parametrize("target", ["/builds/", "/builds/{}/", "/builds/{}/log/"])
async def test_a_slash_too_many_is_no_redirect_that_the_client_did_not_sign(service, target):
    build_id = await submitted(service)
    is_problem(await ask(service, target.format(build_id)), 404)


async def test_the_largest_number_of_a_line_has_sixteen_digits(service, builds):
    build_id = await submitted(service)
    builds.end(build_id, BuildState.SUCCESS)
    target = f"/builds/{build_id}/log?after="
    assert (await ask(service, f"{target}{2**53 - 1}")).status_code == 200
    is_problem(await ask(service, f"{target}{2**53}"), 400)


@given(st.binary(max_size=40), st.sampled_from(["", "/log", "/retry"]))
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
async def test_any_id_is_an_answer_and_no_crash(service, raw: bytes, rest: str):
    target = "/builds/" + "".join(f"%{byte:02x}" for byte in raw) + rest
    answer = await ask(service, target, "POST" if rest == "/retry" else "GET")
    assert answer.status_code in (200, 404, 405)
