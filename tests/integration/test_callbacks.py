"""Callbacks from outside: a build is submitted, and its receiver is told how it ended."""

import asyncio
import hmac
import json
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from function_builder.engine import NatsServer
from tests.support import until
from tests.support.builders import WEBHOOK_SECRET, running_builder
from tests.support.queued import ENDS, QueueClient, slow, tiny
from tests.support.receivers import Receiver, receiver
from tests.support.requests import SECRET, make_tar

pytestmark = pytest.mark.integration


@pytest.fixture
async def builder(tmp_path, buildkitd):
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        settings = {
            "nats_url": server.url,
            "store_url": (tmp_path / "store").as_uri(),
            "callback_hosts": "127.0.0.1:*",
            "max_inflight": "1",
        }
        async with running_builder(tmp_path / "a", buildkitd, **settings) as running:
            yield running


async def events(listening: Receiver, build_id: str, number: int) -> list[dict[str, Any]]:
    """The verified events of a build, when so many are there."""

    def received():
        requests = listening.requests
        return [one for one in requests if one.headers["x-call-id"] == build_id]

    await until(lambda: len(received()) >= number)
    for request in received():
        mac = hmac.new(SECRET.encode(), request.body, "sha256").hexdigest()
        assert request.headers["x-build-signature"] == f"sha256={mac}"
    return [Webhook(WEBHOOK_SECRET).verify(request.body, request.headers) for request in received()]


async def test_a_receiver_is_told_of_each_end_and_of_what_it_asked_for(builder, http):
    client = QueueClient(http, builder.url)
    async with receiver() as listening:
        url = f"http://127.0.0.1:{listening.port}/hook?token=s3cr3t"

        refused = await client.submit(tiny("no"), X_Callback_Url="http://10.0.0.1/")
        assert refused.status_code == 400
        assert "callback_hosts" in refused.text
        assert await client.all() == []

        every = "build.finished, build.queued, build.started"
        good = await client.submitted(
            tiny("good"), X_Callback_Url=url, X_Callback_Events=every, Prefer=""
        )
        told = await events(listening, good, 3)
        assert sorted(event["type"] for event in told) == [
            "build.finished",
            "build.queued",
            "build.started",
        ]
        (end,) = [event["data"] for event in told if event["type"] == "build.finished"]
        build = await client.until(good, *ENDS)
        del build["signature"]  # of the answer that has it
        assert build.pop("callback")["status"] in ("pending", "delivered")
        assert end == build

        body = make_tar({"Dockerfile": "FROM busybox\nRUN exit 7\n"}, {"skipPush": True})
        bad = await client.submitted(body, X_Callback_Url=url)
        (told_bad,) = await events(listening, bad, 1)
        assert told_bad["data"]["status"] == "failed"
        assert "exit code: 7" in told_bad["data"]["error"]

        async def shown() -> dict[str, Any]:
            callback: dict[str, Any] = (await client.get(bad))["callback"]
            return callback

        async with asyncio.timeout(60):
            while (await shown())["status"] == "pending":
                await asyncio.sleep(0.05)
        assert await shown() == {"status": "delivered", "attempts": 1, "lastStatus": 204}

        long = await client.submitted(slow(60, "callback"), X_Callback_Url=url)
        queued = await client.submitted(tiny("queued"), X_Callback_Url=url)
        await client.until(long, "running")
        await client.ask("DELETE", f"/builds/{queued}")
        await client.ask("DELETE", f"/builds/{long}")
        for build_id in (long, queued):
            (told_cancelled,) = await events(listening, build_id, 1)
            assert told_cancelled["data"]["status"] == "cancelled"
        # The receiver has a request before the builder has the answer, which ends with the block.
        await until(lambda: builder.log.read_text().count("callback delivered") == 6)
        assert builder.metric('callback_attempts_total{outcome="delivered"}') == 6

    statuses = {
        json.loads(request.body)["data"]["buildId"]: request.headers["x-function-status"]
        for request in listening.requests
        if b"build.finished" in request.body
    }
    assert statuses == {good: "200", bad: "500", long: "499", queued: "499"}
    assert len({request.headers["webhook-id"] for request in listening.requests}) == 6
    assert "s3cr3t" not in builder.log.read_text()
