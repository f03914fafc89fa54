"""Callbacks in a real JetStream: each is delivered, whatever ends between two steps."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator

import nats
import pytest
import pytest_asyncio
from nats.js.errors import NotFoundError

from function_builder.contract.callback_url import CallbackHosts
from function_builder.engine.nats import NatsServer
from function_builder.queue import callback_stream
from function_builder.queue.callback_stream import CallbackStream
from function_builder.queue.callbacks import Callbacks, Unavailable
from function_builder.queue.outbound import Answer
from function_builder.queue.webhooks import CallbackKeys, Webhook
from tests.support import until

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory) -> AsyncIterator[NatsServer]:
    root = tmp_path_factory.mktemp("nats")
    async with NatsServer(root, log=root / "log") as running:
        yield running


@contextlib.asynccontextmanager
async def connected(server: NatsServer, held: float = 600) -> AsyncIterator[CallbackStream]:
    """A stream as one replica has it; what is lost comes back after a time that no test waits."""
    client = await nats.connect(
        server.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=_ignore
    )
    try:
        yield CallbackStream(client.jetstream(timeout=60), held=held)
    finally:
        await client.close()


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def empty(server: NatsServer) -> None:
    """No callbacks of another test."""
    client = await nats.connect(server.url)
    with contextlib.suppress(NotFoundError):
        await client.jetstream().purge_stream(callback_stream.STREAM)
    await client.close()


async def _ignore(_error: Exception) -> None:
    """Nats-py logs each attempt to reconnect by default."""


def webhook(number: int, **changes) -> Webhook:
    made = Webhook(
        id=f"msg_{number}_{time.time_ns()}",
        url=f"https://h{number % 7}.example.com/",
        tenant="default",
        build_id=str(number),
        body=b'{"type":"build.finished"}',
        created=time.time(),
    )
    return dataclasses.replace(made, **changes)


async def delivered(stream: CallbackStream) -> None:
    """Wait until nothing waits."""
    async with asyncio.timeout(60):
        while await stream.waiting():
            await asyncio.sleep(0.05)


class Receivers:
    """Answers with what is in `answers` for an id, then with 200."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.answers: dict[str, list[int]] = {}

    async def post(self, _url, headers, _body) -> Answer:
        name = headers["webhook-id"]
        self.received.append(name)
        left = self.answers.get(name)
        return Answer(left.pop(0) if left else 200, None)


@contextlib.asynccontextmanager
async def replica(
    server: NatsServer, receivers, held: float = 600
) -> AsyncIterator[CallbackStream]:
    async with connected(server, held) as stream:
        sending = Callbacks(
            stream,
            receivers,
            CallbackHosts.parse("*"),
            lambda _tenant: CallbackKeys([bytes(32)], None),
            lambda _outcome: None,
        )
        task = asyncio.create_task(sending.run())
        try:
            yield stream
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.asyncio(loop_scope="module")
async def test_each_is_delivered_once_by_three_replicas(server):
    made = [webhook(number) for number in range(60)]
    receivers = Receivers()
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(replica(server, receivers)) for _ in range(3)]
        await asyncio.gather(*(streams[number % 3].publish(one) for number, one in enumerate(made)))
        await delivered(streams[0])
    assert sorted(receivers.received) == sorted(one.id for one in made)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_same_event_is_stored_once(server):
    async with connected(server) as stream, connected(server) as other:
        one = webhook(1)
        await asyncio.gather(stream.publish(one), other.publish(one), stream.publish(one))
        assert await stream.waiting() == 1
        message = await stream.next()
        assert message is not None
        await message.done()
        # A builder that was lost after its callback was delivered: the next one publishes again.
        await other.publish(one)
        assert await stream.waiting() == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_a_failed_attempt_comes_back_when_it_is_due(server, monkeypatch):
    monkeypatch.setattr("function_builder.queue.schedule._DELAYS", (0.2, 0.4))
    one = webhook(1)
    receivers = Receivers()
    receivers.answers[one.id] = [500, 503]
    async with replica(server, receivers) as stream:
        await stream.publish(one)
        await until(lambda: len(receivers.received) == 3)
        await delivered(stream)
    assert set(receivers.received) == {one.id}


@pytest.mark.asyncio(loop_scope="module")
async def test_one_under_way_in_a_builder_that_ends_goes_to_another_at_once(server):
    class Hanging(Receivers):
        async def post(self, url, headers, body) -> Answer:
            await super().post(url, headers, body)
            await asyncio.Event().wait()
            raise AssertionError

    one = webhook(1)
    hanging, receivers = Hanging(), Receivers()
    async with replica(server, hanging) as leaving:
        await leaving.publish(one)
        await until(lambda: hanging.received)
    async with replica(server, receivers):
        await until(lambda: receivers.received == [one.id])


@pytest.mark.asyncio(loop_scope="module")
async def test_one_on_its_way_to_a_builder_that_leaves_goes_to_another_at_once(server):
    receivers = Receivers()
    async with connected(server) as leaving:
        for _ in range(20):
            one = webhook(1)
            asking = asyncio.create_task(leaving.next())
            # The request is with the server, which answers it while its builder leaves.
            await leaving.waiting()
            await leaving.publish(one)
            asking.cancel()
            await asyncio.wait([asking])
            if not asking.cancelled() and (arrived := asking.result()) is not None:
                # It was here before the cancellation, so it is the caller's to give back.
                await arrived.postpone(0)
            await leaving.leave()
            async with replica(server, receivers):
                await until(lambda: one.id in receivers.received)  # noqa: B023 (awaited here)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_builder_leaves_at_once_although_an_answer_came_late(server, monkeypatch):
    """NATS says that a request has ended, after nats-py gave it up."""
    monkeypatch.setattr(callback_stream, "_NEXT_SECONDS", 0.2)
    async with connected(server) as leaving:
        assert await leaving.next() is None
        messages = await leaving._subscription()
        client = leaving._context._nc
        await client.publish(messages._deliver, headers={"Status": "408"})
        await client.flush()
        assert await leaving.next() is None
        async with asyncio.timeout(callback_stream._LEAVE_SECONDS - 1):
            await leaving.leave()


@pytest.mark.asyncio(loop_scope="module")
async def test_one_under_way_in_a_builder_that_was_lost_is_sent_again(server):
    one, receivers = webhook(1), Receivers()
    async with connected(server, 1) as lost:
        await lost.publish(one)
        # Neither removed nor given back: its builder was killed.
        assert await lost.next() is not None
    async with replica(server, receivers, 1) as stream:
        await delivered(stream)
    # Where a second passes before its acknowledgment, it comes once more.
    assert set(receivers.received) == {one.id}


@pytest.mark.asyncio(loop_scope="module")
async def test_more_than_a_thousand_that_wait_stop_no_other(server):
    """JetStream's own bound on messages without an acknowledgment is 1000."""
    later = time.time() + 3600
    waiting = [webhook(number, not_before=later) for number in range(1100)]
    one, receivers = webhook(1), Receivers()
    async with replica(server, receivers) as stream:
        for start in range(0, len(waiting), 100):
            await asyncio.gather(*map(stream.publish, waiting[start : start + 100]))
        await stream.publish(one)
        await until(lambda: receivers.received)
        assert await stream.waiting() >= 1100
    assert receivers.received == [one.id]


@pytest.mark.asyncio(loop_scope="module")
async def test_what_waits_outlives_a_kill_of_the_server(server, monkeypatch):
    monkeypatch.setattr("function_builder.queue.schedule._DELAYS", (1.0,))
    monkeypatch.setattr(callback_stream, "_NEXT_SECONDS", 1.0)
    made = [webhook(number) for number in range(20)]
    receivers = Receivers()
    receivers.answers = {one.id: [500] for one in made}
    # What the kill took of acknowledgments is handed out again after 3 s.
    async with replica(server, receivers, 3) as stream:
        await asyncio.gather(*map(stream.publish, made))
        await until(lambda: len(receivers.received) >= 10)
        os.killpg(server.pid, signal.SIGKILL)
        await until(lambda: all(receivers.received.count(one.id) >= 2 for one in made), timeout=100)


@pytest.mark.asyncio(loop_scope="module")
async def test_one_is_sent_without_a_wait_for_others(server, monkeypatch):
    monkeypatch.setattr(callback_stream, "_NEXT_SECONDS", 1000.0)
    receivers = Receivers()
    async with replica(server, receivers) as stream:
        for number in range(3):
            await stream.publish(webhook(number))
            await until(lambda: len(receivers.received) == number + 1)  # noqa: B023 (awaited here)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_server_that_is_away_is_told(server, tmp_path):
    async with NatsServer(tmp_path, log=tmp_path / "log") as other:
        client = await nats.connect(other.url, allow_reconnect=False, error_cb=_ignore)
        stream = CallbackStream(client.jetstream(timeout=60))
        await stream.publish(webhook(1))
    await until(lambda: client.is_closed)
    with pytest.raises(Unavailable):
        await stream.publish(webhook(2))
    with pytest.raises(Unavailable):
        await stream.next()
    await client.close()
