"""POST /build when the builder itself is at fault: its client is told, nothing is held on to."""

import asyncio
import dataclasses
import json
import os
import threading
import time
from collections.abc import Mapping
from unittest.mock import Mock

import httpx2
import pytest
from structlog.testing import capture_logs

from function_builder.builds.builder import Builder
from function_builder.contract.answer_signature import AnswerSignature, build_answer
from function_builder.contract.errors import Refusal
from function_builder.contract.timestamp import stamp
from function_builder.server import exchange
from function_builder.server.app import create_app
from function_builder.server.places import NoSlot
from function_builder.server.replays import Replays
from function_builder.server.service import Service
from function_builder.server.slots import Slots
from tests.support import until
from tests.support.requests import SECRET, headers, make_tar
from tests.support.services import idle_service

BODY = make_tar({"Dockerfile": "FROM scratch\n"}, {"skipPush": True})
BLAME = "the builder failed: this is not the fault of your build"


@pytest.fixture
async def service(tmp_path) -> Service:
    service = idle_service(tmp_path)
    service.slots = Slots(1)
    return service


async def post(service: Service, **headers: str):
    return await post_body(service, BODY, headers)


async def post_body(service: Service, body: bytes, headers: Mapping[str, str]):
    transport = httpx2.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://builder") as client:
        return await client.post("/build", content=body, headers=headers)


@pytest.fixture
def crashing(monkeypatch):
    """Builds that have begun, then meet a fault of ours."""

    async def crash(self, build, mask):
        build.start()
        raise ZeroDivisionError

    monkeypatch.setattr(Builder, "_placed", crash)


async def test_a_build_that_crashes_is_told_of_and_frees_its_slot(service, crashing):
    with capture_logs() as log:
        answer = await post(service)
    assert (answer.status_code, answer.json()["error"]) == (500, BLAME)
    assert service.slots.taken == 0
    assert not service.running
    (crash,) = (line for line in log if line["event"] == "a build crashed")
    assert isinstance(crash["exc_info"], ZeroDivisionError)


async def test_a_stream_has_its_last_line_even_then(service, crashing):
    answer = await post(service, accept="application/x-ndjson")
    assert json.loads(answer.content.splitlines()[-1])["error"] == BLAME
    assert service.slots.taken == 0


async def test_a_check_that_crashes_frees_the_slot(service, monkeypatch):
    def crash(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("function_builder.server.exchange.checked", crash)
    answer = await post(service)
    assert (answer.status_code, answer.json()["status"]) == (500, "failed")
    assert service.slots.taken == 0
    assert service.uploads.taken == 0


async def test_checks_of_large_bodies_leave_a_thread_to_small_ones(service, monkeypatch):
    service.slots = Slots(0)
    let = threading.Event()

    def check(spool, *_):
        if spool.size > exchange.LARGE_BYTES:
            let.wait(60)
        raise Refusal(400, "checked")

    monkeypatch.setattr(exchange, "checked", check)
    large = [
        asyncio.create_task(post_body(service, bytes(exchange.LARGE_BYTES + 1), {}))
        for _ in range(2 * (os.cpu_count() or 1) + 8)
    ]
    try:
        await until(service.large_checks.locked)
        async with asyncio.timeout(60):
            assert (await post(service)).status_code == 400
        assert not any(task.done() for task in large)
    finally:
        let.set()
    assert {(await task).status_code for task in large} == {400}


async def test_a_request_for_which_there_was_no_slot_may_come_again_as_it_is(
    service, crashing, monkeypatch
):
    """curl sends what it has when it tries again."""
    (service.settings.spool_dir / "payload-secret").write_text(SECRET)
    service.settings = dataclasses.replace(
        service.settings, disable_hmac=False, secret_mount_path=service.settings.spool_dir
    )
    service.replays = Replays(300)
    sent = headers(BODY)
    time_of_it = stamp(SECRET.encode(), sent["X-Build-Signature"], time.time())
    sent["X-Build-Timestamp"] = time_of_it
    with monkeypatch.context() as change:
        # Another one took the last slot while this body was on its way.
        change.setattr(service.slots, "place", Mock(side_effect=NoSlot(1)))
        assert (await post(service, **sent)).status_code == 429
    assert (await post(service, **sent)).json()["error"] == BLAME
    assert (await post(service, **sent)).status_code == 401


async def test_the_secret_that_signed_a_request_signs_its_answer(service, crashing):
    """While the payload secret rotates, clients know one of two."""
    (service.settings.spool_dir / "payload-secret").write_text("the new secret")
    (service.settings.spool_dir / "payload-secret-previous").write_text(SECRET)
    service.settings = dataclasses.replace(
        service.settings, disable_hmac=False, secret_mount_path=service.settings.spool_dir
    )
    sent = headers(BODY) | {"X-Build-Timestamp": "a nonce"}

    def signature() -> AnswerSignature:
        return build_answer(SECRET.encode(), sent["X-Build-Signature"], "a nonce")

    assert signature().proves((await post(service, **sent)).content)
    streamed = (await post(service, **sent, accept="application/x-ndjson")).content
    *lines, last = streamed.splitlines(keepends=True)
    rolling = signature()
    for line in lines:
        rolling.update(line)
    assert rolling.proves(last)


async def test_an_answer_to_a_request_without_signature_has_none(service, crashing):
    assert "signature" not in (await post(service)).json()
