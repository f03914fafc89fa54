"""What a request to build holds, and when it gives that back."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from function_builder.builds.build import Outcome
from function_builder.builds.builder import Builder
from function_builder.builds.failures import Failure
from function_builder.contract.findings import Reason
from function_builder.server.app import create_app
from function_builder.server.service import Service
from function_builder.server.slots import Slots
from tests.support import until
from tests.support.requests import make_tar
from tests.support.services import idle_service

BODY = make_tar({"Dockerfile": "FROM scratch\n", "more": "x" * 1_200_000}, {"skipPush": True})


@pytest.fixture
async def service(tmp_path) -> Service:
    service = idle_service(tmp_path)
    service.slots = Slots(1)
    return service


class Connection:
    """An ASGI channel; its client reads when a test lets it, and goes away when a test says so."""

    def __init__(self, *, accept: str = "") -> None:
        self.accept = accept
        self.body = [BODY]
        self.gone = asyncio.Event()
        self.reads = asyncio.Event()
        self.sent: list[dict[str, Any]] = []
        self.held_at_end: int | None = None

    async def post(self, service: Service) -> None:
        async def receive() -> dict[str, Any]:
            if self.body:
                return {"type": "http.request", "body": self.body.pop(), "more_body": False}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.held_at_end = service.slots.taken + service.space.reserved
            self.sent.append(message)
            await self.reads.wait()

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/build",
            "query_string": b"",
            "headers": [(b"accept", self.accept.encode())],
        }
        await create_app(service)(scope, receive, send)


@pytest.fixture
def endless(monkeypatch) -> asyncio.Event:
    """Builds that run until the event."""
    until = asyncio.Event()

    async def run(self, build) -> None:
        build.start()
        outcome = Outcome.CANCELLED
        try:
            await until.wait()
            outcome = Outcome.FAILED
        finally:
            build.fail(outcome, Failure(error="no", reason=Reason.STEP, retryable=False))

    monkeypatch.setattr(Builder, "run", run)
    return until


@pytest.mark.parametrize("accept", ["", "application/x-ndjson"])
async def test_a_client_that_reads_nothing_holds_neither_slot_nor_body(service, endless, accept):
    connection = Connection(accept=accept)
    answering = asyncio.create_task(connection.post(service))
    async with asyncio.timeout(60):
        await until(lambda: service.running)
        assert (service.slots.taken, service.space.reserved > 0) == (1, True)
        endless.set()
        await until(lambda: connection.sent and not service.slots.taken + service.space.reserved)
        assert not answering.done()
        connection.reads.set()
        await answering
    assert service.unread.size == 0


async def test_what_a_request_holds_is_free_before_the_last_byte_of_its_answer(service, endless):
    endless.set()
    connection = Connection()
    connection.reads.set()
    await connection.post(service)
    assert connection.held_at_end == 0


async def test_a_refused_request_holds_nothing_while_its_answer_is_not_read(service):
    connection = Connection()
    connection.body = [b"no tar"]
    answering = asyncio.create_task(connection.post(service))
    async with asyncio.timeout(60):
        await until(lambda: connection.sent)
        connection.reads.set()
        await answering
    assert connection.held_at_end == 0
    assert connection.sent[0]["status"] == 400


async def test_a_client_that_is_gone_at_once_leaves_nothing_and_is_counted_once(service, endless):
    connection = Connection()
    connection.gone.set()
    connection.reads.set()
    with capture_logs() as log:
        async with asyncio.timeout(60):
            await connection.post(service)
    assert (service.slots.taken, service.space.reserved) == (0, 0)
    assert not service.running
    assert [line["outcome"] for line in log if line["event"] == "build ended"] == ["cancelled"]
    assert service.metrics.builds.labels("cancelled")._value.get() == 1
