"""Programs that a queued build needs are away, or come late; `test_steps.py` kills them."""

import os
import signal

import pytest

from function_builder.engine import NatsServer
from tests.support import free_address, until
from tests.support.builders import running_builder
from tests.support.holding import nats_proxy
from tests.support.queued import ENDS, QueueClient, slow, tiny
from tests.support.requests import headers

pytestmark = pytest.mark.integration


@pytest.fixture
async def nats(tmp_path):
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        yield server


@pytest.fixture
def settings(nats, tmp_path):
    return {"nats_url": nats.url, "store_url": (tmp_path / "store").as_uri(), "max_inflight": "2"}


async def test_while_nats_is_silent_synchronous_builds_go_on_and_asynchronous_ones_are_refused(
    nats, settings, tmp_path, buildkitd, http
):
    async with running_builder(tmp_path / "a", buildkitd, **settings) as builder:
        client = QueueClient(http, builder.url)
        before = await client.submitted(tiny("before"))
        await client.until(before, *ENDS)
        os.killpg(nats.pid, signal.SIGSTOP)
        try:
            body = tiny("synchronous")
            answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
            assert answer.status_code == 200
            refused = await client.submit(tiny("refused"))
            assert refused.status_code == 503
        finally:
            os.killpg(nats.pid, signal.SIGCONT)
        after = await client.submitted(tiny("after"))
        assert (await client.until(after, *ENDS))["status"] == "success"
        found = await client.until(answer.headers["X-Build-Id"], *ENDS)
        assert found["status"] == "success"


async def test_a_builder_may_start_before_nats(tmp_path, buildkitd, http):
    server = NatsServer(tmp_path / "nats", log=tmp_path / "nats.log")
    async with nats_proxy(free_address()) as proxy:
        settings = {
            "nats_url": f"{server.url}{proxy.address}",
            "store_url": (tmp_path / "store").as_uri(),
        }
        async with running_builder(tmp_path / "a", buildkitd, **settings) as builder:
            assert "the queue cannot be reached" in builder.get("/ready").text
            client = QueueClient(http, builder.url)
            assert (await client.submit(tiny("refused"))).status_code == 503
            body = tiny("synchronous")
            answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
            assert answer.status_code == 200
            async with server:
                proxy.server = server.url.rpartition("@")[2]
                await until(lambda: "cannot" not in builder.get("/ready").text)
                build_id = await client.submitted(tiny("accepted"))
                assert (await client.until(build_id, *ENDS))["status"] == "success"
                # Its record waited.
                await client.until(answer.headers["X-Build-Id"], "success")


async def test_a_builder_that_nats_refuses_does_not_start(nats, settings, tmp_path, buildkitd):
    address = nats.url.rpartition("@")[2]
    wrong = settings | {"nats_url": f"nats://wrong@{address}"}
    root = tmp_path / "a"
    with pytest.raises(AssertionError, match=r"nats_url cannot be used: it refuses the user"):
        async with running_builder(root, buildkitd, **wrong):
            pass


async def test_a_build_that_ends_its_buildkit_fails_after_three(
    settings, tmp_path, fresh_buildkitd, http
):
    daemon = await fresh_buildkitd()
    async with running_builder(tmp_path / "a", daemon.address, **settings) as builder:
        client = QueueClient(http, builder.url)
        build_id = await client.submitted(slow(60, "poison"))

        kills = 0
        async for line in client.lines(build_id):
            if "begun poison" in line:
                kills += 1
                os.killpg(daemon.pid, signal.SIGKILL)
        build = await client.until(build_id, *ENDS)
        # An attempt may begin a second time by itself.
        assert kills >= build["attempt"] == 3
        assert build["status"] == "failed"
        after = await client.submitted(tiny("after"))
        assert (await client.until(after, *ENDS))["status"] == "success"
