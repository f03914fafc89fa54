"""When callbacks are sent, sent again, and given up."""

import asyncio
import contextlib
import dataclasses
import ssl
import time
from collections import Counter
from ipaddress import ip_address
from itertools import pairwise

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from function_builder.contract.builds import CallbackInfo, CallbackState
from function_builder.contract.callback_url import CallbackHosts
from function_builder.queue import callbacks
from function_builder.queue.callbacks import Callbacks, KeysUnavailable, Unavailable
from function_builder.queue.outbound import Answer, DeliveryError, Outbound
from function_builder.queue.port import CallbackOutcome
from function_builder.queue.schedule import MAX_HOST_ATTEMPTS, Lane, next_attempt
from function_builder.queue.webhooks import CallbackKeys, Webhook
from tests.support import until
from tests.support.receivers import answering, receiver

KEYS = CallbackKeys([bytes(32)], b"payload")
HOUR = 3600


def webhook(number: int = 1, *, host: str = "hooks.example.com", **changes) -> Webhook:
    made = Webhook(
        id=f"msg_{number}_finished",
        url=f"https://{host}/services/secret-path?token=secret-query",
        tenant="default",
        build_id=str(number),
        body=b"{}",
        status=200,
        created=time.time(),
    )
    return dataclasses.replace(made, **changes)


class Message:
    def __init__(self, stream: "Stream", waiting: Webhook | bytes) -> None:
        self.stream = stream
        self.data = waiting if isinstance(waiting, bytes) else waiting.to_message()
        self.ended = False
        self.postponed: list[float] = []
        self.held = asyncio.Event()
        self.let_go = asyncio.Event()

    async def hold(self) -> None:
        self.held.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.let_go.set()

    async def done(self) -> None:
        self.ended = True
        self.stream.removed += 1

    async def postpone(self, seconds: float) -> None:
        self.postponed.append(seconds)


class Stream:
    """Hands out what is put in; nothing that was postponed comes back by itself."""

    def __init__(self, *waiting: Webhook | bytes) -> None:
        self.messages = [Message(self, one) for one in waiting]
        self.published: list[Webhook] = []
        self.removed = 0
        self.failing = 0
        self.storing = True
        self.reports: list[CallbackInfo] = []
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        for message in self.messages:
            self._queue.put_nowait(message)

    async def next(self) -> Message:
        if self.failing:
            self.failing -= 1
            raise Unavailable("away")
        return await self._queue.get()

    async def leave(self) -> None:
        """Nothing comes back here by itself."""

    async def publish(self, made: Webhook) -> None:
        if not self.storing:
            raise Unavailable("away")
        self.published.append(made)

    async def report(self, tenant: str, build_id: str, info: CallbackInfo) -> None:
        assert (tenant, build_id.isdigit()) == ("default", True)
        self.reports.append(info)

    def put(self, one: Webhook) -> Message:
        message = Message(self, one)
        self.messages.append(message)
        self._queue.put_nowait(message)
        return message


class Receivers:
    """Answers by host."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.sent: list[tuple[str, dict[str, str]]] = []
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.release = asyncio.Event()

    async def post(self, url, headers, _body) -> Answer:
        self.sent.append((url.host, headers))
        self.running[url.host] += 1
        self.most[url.host] = max(self.most[url.host], self.running[url.host])
        try:
            answer = self.answers.get(url.host.partition(".")[0], Answer(200, None))
            if answer == "hang":
                await self.release.wait()
                raise DeliveryError("no answer within 20 s")
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, Answer)
            return answer
        finally:
            self.running[url.host] -= 1


@contextlib.asynccontextmanager
async def running(stream: Stream, outbound, *, hosts: str = "*", keys=lambda _tenant: KEYS):
    outcomes: list[CallbackOutcome] = []
    allowed = CallbackHosts.parse(hosts)
    sending = Callbacks(stream, outbound, allowed, keys, outcomes.append, report=stream.report)
    task = asyncio.create_task(sending.run())
    try:
        yield outcomes
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_delivered_callback_is_removed():
    stream, receivers = Stream(webhook()), Receivers()
    async with running(stream, receivers) as outcomes:
        await until(lambda: stream.removed == 1)
    (report,) = stream.reports
    assert (report.state, report.attempts, report.status) == (CallbackState.DELIVERED, 1, 200)
    assert outcomes == ["delivered"]
    assert not stream.published
    assert receivers.sent[0][1]["webhook-id"] == "msg_1_finished"


@pytest.mark.parametrize(
    "answer",
    [Answer(500, None), Answer(404, None), Answer(302, None), DeliveryError("refused")],
    ids=str,
)
async def test_a_failed_attempt_is_stored_as_the_next_one_before_it_is_removed(answer):
    stream = Stream(webhook(attempt=1))
    async with running(stream, Receivers(hooks=answer)) as outcomes:
        await until(lambda: stream.removed == 1)
    assert outcomes == ["retried"]
    (again,) = stream.published
    assert (again.id, again.attempt) == ("msg_1_finished", 2)
    assert again.not_before == pytest.approx(time.time() + 300, abs=60)
    (report,) = stream.reports
    assert (report.state, report.attempts) == (CallbackState.PENDING, 2)
    assert report.next_attempt == again.not_before
    if isinstance(answer, DeliveryError):
        assert (report.status, report.error) == (0, "refused")
    else:
        assert (report.status, report.error) == (answer.status, "")


async def test_the_end_of_an_attempt_that_cannot_be_stored_leaves_the_callback():
    stream = Stream(webhook())
    stream.storing = False
    async with running(stream, receivers := Receivers(hooks=Answer(500, None))):
        await until(lambda: receivers.sent and not receivers.running["hooks.example.com"])
        await asyncio.sleep(0)
    assert not stream.messages[0].ended


async def test_gone_ends_it():
    stream = Stream(webhook())
    async with running(stream, Receivers(hooks=Answer(410, 5.0))) as outcomes:
        await until(lambda: stream.removed == 1)
    assert outcomes == ["gone"]
    assert [(each.state, each.status) for each in stream.reports] == [(CallbackState.FAILED, 410)]
    assert not stream.published


async def test_after_75_hours_it_is_given_up_but_never_without_an_attempt():
    late = webhook(created=time.time() - 76 * HOUR)
    stream = Stream(late)
    async with running(stream, receivers := Receivers(hooks=Answer(500, None))) as outcomes:
        await until(lambda: stream.removed == 1)
    assert outcomes == ["expired"]
    assert [(each.state, each.status) for each in stream.reports] == [(CallbackState.FAILED, 500)]
    assert len(receivers.sent) == 1
    assert not stream.published


def attempts(retry_after: float | None = None, chance: float = 0.5) -> list[float]:
    """When each attempt is made, if all fail at once."""
    made, now = webhook(created=0.0), 0.0
    times = [now]
    while True:
        made = dataclasses.replace(made, attempt=made.attempt + 1)
        due = next_attempt(made, now, retry_after, chance)
        if due is None:
            return times
        now = due
        times.append(now)


def test_the_schedule():
    minutes = [0, 5 / 60, 5 + 5 / 60, 35 + 5 / 60, 155 + 5 / 60, 455 + 5 / 60]
    hours = [1055 / 60 + 5 / 3600 + 10 * step for step in range(6)]
    expected = [60 * minute for minute in minutes] + [3600 * hour for hour in hours]
    assert attempts() == pytest.approx(expected)


def test_retry_after_lengthens_a_delay_and_shortens_none():
    assert attempts(retry_after=3600.0)[1:4] == pytest.approx([3600, 7200, 10800])
    assert attempts(retry_after=0.0) == attempts()
    assert attempts(retry_after=1e9)[1] == 36_000


@given(chance=st.floats(0, 1), retry_after=st.none() | st.floats(0, 1e9))
def test_every_schedule_ends_within_75_hours(chance, retry_after):
    times = attempts(retry_after, chance)
    assert 7 <= len(times) <= 14
    assert times[-1] <= 75 * HOUR < times[-1] + 1.1 * 10 * HOUR
    assert all(later - earlier >= 4.4 for earlier, later in pairwise(times))


async def test_one_that_is_not_due_waits_for_its_time():
    stream = Stream(webhook(attempt=3, not_before=time.time() + 1000))
    async with running(stream, receivers := Receivers()):
        await until(lambda: stream.messages[0].postponed)
    assert stream.messages[0].postponed == [pytest.approx(1000, abs=60)]
    assert not receivers.sent


async def test_a_receiver_that_hangs_does_not_delay_others():
    dead = [webhook(number, host="dead.example.com") for number in range(40)]
    stream = Stream(*dead)
    async with running(stream, receivers := Receivers(dead="hang")):
        alive = [stream.put(webhook(100 + number)) for number in range(20)]
        await until(lambda: all(message.ended or message.postponed for message in alive))
        while not all(message.ended for message in alive):
            for index, message in enumerate(alive):
                if not message.ended and message.postponed:
                    alive[index] = stream.put(Webhook.parse(message.data))
            await asyncio.sleep(0)
        assert receivers.most["dead.example.com"] == MAX_HOST_ATTEMPTS
        assert receivers.most["hooks.example.com"] <= MAX_HOST_ATTEMPTS
        waits = [message.postponed[0] for message in stream.messages[:40] if message.postponed]
        assert len(waits) == 40 - MAX_HOST_ATTEMPTS
        assert all(wait >= 1 for wait in waits)
        # One that did not answer has one place from then on.
        receivers.release.set()
        await until(lambda: not receivers.running["dead.example.com"])
        receivers.release.clear()
        receivers.most.clear()
        more = [stream.put(webhook(200 + n, host="dead.example.com")) for n in range(5)]
        await until(lambda: sum(bool(message.postponed) for message in more) == 4)
        assert receivers.most["dead.example.com"] == 1
    # What was under way at the end is given back at once.
    assert sum(message.postponed == [0] for message in more) == 1


async def test_one_under_way_is_kept_from_other_builders_until_its_attempt_ends():
    stream = Stream(webhook(host="hang.example.com"))
    receivers = Receivers(hang="hang")
    async with asyncio.timeout(60), running(stream, receivers):
        (message,) = stream.messages
        await message.held.wait()
        assert not message.let_go.is_set()
        receivers.release.set()
        await message.let_go.wait()


def test_those_without_a_place_have_times_one_after_the_other():
    lane = Lane(seconds=20.0, limit=1)
    waits = [lane.book(1000.0) for _ in range(50)]
    assert waits[:3] == [21.0, 41.0, 61.0]
    assert waits[-1] == 600.0
    # The time that has passed counts, and a good answer begins again.
    assert lane.book(2500.0) == 1 + 20.0
    lane.note(0.0, well=True)
    assert lane.book(2500.0) < 3.0


@pytest.mark.parametrize(("status", "most"), [(503, 1), (429, 1), (500, 8), (200, 8)])
async def test_a_receiver_that_is_overloaded_gets_one_at_a_time(status, most):
    stream = Stream(webhook())
    async with running(stream, receivers := Receivers(hooks=Answer(status, None))):
        await until(lambda: stream.removed == 1)
        receivers.answers["hooks"] = "hang"
        more = [stream.put(webhook(number)) for number in range(10, 20)]
        await until(lambda: sum(bool(message.postponed) for message in more) == 10 - most)
        assert receivers.most["hooks.example.com"] == most


async def test_the_number_of_attempts_at_a_time_is_bounded():
    hosts = [webhook(number, host=f"dead.h{number}.example") for number in range(100)]
    async with running(stream := Stream(*hosts), receivers := Receivers(dead="hang")):
        await until(lambda: sum(receivers.running.values()) == callbacks.MAX_ATTEMPTS)
        receivers.release.set()
        await until(lambda: stream.removed == 100)


async def test_one_that_cannot_be_signed_waits():
    def keys(_tenant: str) -> CallbackKeys:
        raise KeysUnavailable("no webhook-secret")

    async with running(stream := Stream(webhook()), receivers := Receivers(), keys=keys):
        await until(lambda: stream.messages[0].postponed)
    assert not receivers.sent
    assert not stream.published


async def test_a_host_that_is_not_listed_any_more_gets_nothing():
    stream = Stream(webhook())
    async with running(stream, receivers := Receivers(), hosts="other.example") as outcomes:
        await until(lambda: stream.removed == 1)
    assert outcomes == ["forbidden"]
    assert not receivers.sent


@pytest.mark.parametrize("data", [b"", b"{}", webhook(host="[", body=b"x").to_message()])
async def test_another_message_is_removed(data):
    async with running(stream := Stream(data, webhook()), receivers := Receivers()):
        await until(lambda: stream.removed == 2)
    assert len(receivers.sent) == 1


async def test_it_goes_on_when_the_stream_is_there_again(monkeypatch):
    monkeypatch.setattr(callbacks, "_UNAVAILABLE_SECONDS", 0)
    stream = Stream(webhook())
    stream.failing = 3
    async with running(stream, Receivers()):
        await until(lambda: stream.removed == 1)


async def test_log_lines_have_no_path_query_or_secret():
    stream = Stream(webhook(1), webhook(2, host="slow.example.com"), webhook(3, host="b.example"))
    answers = {"slow": DeliveryError("no answer"), "b": Answer(410, None)}
    with structlog.testing.capture_logs() as lines:
        async with running(stream, Receivers(**answers)):
            await until(lambda: stream.removed == 3)
    assert len(lines) == 3
    assert "secret" not in str(lines)
    assert {line["receiver"] for line in lines} == {
        "https://hooks.example.com",
        "https://slow.example.com",
        "https://b.example",
    }


async def test_with_a_real_receiver_every_attempt_has_one_id_and_a_new_time():
    async def resolve(_host, _port):
        return [ip_address("127.0.0.1")]

    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outbound = Outbound(CallbackHosts.parse("*:*,127.0.0.0/8:*"), resolve=resolve, trust=trust)
    busy = answering(b"HTTP/1.1 503 Busy\r\nRetry-After: 7200\r\nContent-Length: 0\r\n\r\n")
    async with receiver(busy) as listening:
        stream = Stream(webhook(url=f"http://hooks.example.com:{listening.port}/"))
        async with running(stream, outbound, hosts="*:*"):
            await until(lambda: stream.removed == 1)
            (again,) = stream.published
            assert again.not_before == pytest.approx(time.time() + 7200, abs=60)
            stream.put(dataclasses.replace(again, not_before=0.0))
            await until(lambda: stream.removed == 2)
    assert {request.headers["webhook-id"] for request in listening.requests} == {"msg_1_finished"}
    assert [message.attempt for message in stream.published] == [1, 2]
