"""Builds that outlive their connection, from outside: a builder, a nats-server, BuildKit."""

import asyncio
import re

import pytest

from function_builder.engine import NatsServer
from tests.support.builders import running_builder
from tests.support.object_stores import s3_server
from tests.support.queued import ENDS, QueueClient, slow, tiny
from tests.support.requests import headers

pytestmark = pytest.mark.integration


@pytest.fixture
async def nats(tmp_path):
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        yield {
            "nats_url": server.url,
            "store_url": (tmp_path / "store").as_uri(),
            # Nothing here comes after a builder was taken for lost.
            "lost_after": "1h",
        }


@pytest.fixture
async def builder(tmp_path, nats, buildkitd):
    async with running_builder(tmp_path / "a", buildkitd, max_inflight="2", **nats) as running:
        yield running


@pytest.fixture
def client(http, builder):
    return QueueClient(http, builder.url)


async def test_a_build_is_accepted_built_found_and_its_log_kept(client, tmp_path):
    answer = await client.submit(tiny("first"))
    assert answer.status_code == 202
    build_id = answer.json()["buildId"]
    build = await client.until(build_id, *ENDS)
    assert (build["status"], build["attempt"], build["asynchronous"]) == ("success", 1, True)
    assert {"check", "build"} <= build["phases"].keys()
    log = await client.log(build_id)
    assert any("COPY Dockerfile /first" in line for line in log)
    assert [each["buildId"] for each in await client.all()] == [build_id]
    bodies = tmp_path / "store" / "bodies" / "default"
    assert [path.name for path in bodies.iterdir()] == [build_id]


async def test_a_synchronous_build_is_found_too(client, builder, http):
    body = tiny("synchronous")
    answer = await http.post(f"{builder.url}/build", content=body, headers=headers(body))
    assert answer.status_code == 200
    build = await client.until(answer.headers["X-Build-Id"], *ENDS)
    assert (build["status"], build["asynchronous"]) == ("success", False)
    assert await client.log(build["buildId"]) == answer.json()["log"]


async def test_a_log_is_followed_while_its_build_runs_and_after_it_is_cancelled(client):
    build_id = await client.submitted(slow(60, "cancel"))
    following = asyncio.create_task(client.log(build_id))
    await client.until(build_id, "running")
    await client.until_logged(build_id, "begun cancel")
    cancelled = await client.ask("DELETE", f"/builds/{build_id}")
    assert cancelled.json()["status"] == "cancelled"
    async with asyncio.timeout(60):
        log = await following
    assert any(re.search("l: .*begun cancel$", line) for line in log)
    assert (await client.get(build_id))["status"] == "cancelled"
    assert await client.log(build_id) == log


async def test_a_builder_that_drains_gives_its_build_back_at_once(
    builder, nats, tmp_path, buildkitd, http
):
    client = QueueClient(http, builder.url)
    # It must not end before the builder has received the signal.
    build_id = await client.submitted(slow(5, "drain"))
    await client.until(build_id, "running")
    builder.terminate()
    async with running_builder(tmp_path / "b", buildkitd, **nats) as other:
        await builder.process.wait()
        build = await QueueClient(http, other.url).until(build_id, *ENDS)
        assert (build["status"], build["attempt"]) == ("success", 2)
        log = await QueueClient(http, other.url).log(build_id)
    assert any("Attempt 2: it was returned to the queue." in line for line in log)


async def test_bodies_and_logs_may_be_in_s3(nats, tmp_path, buildkitd, http):
    async with s3_server(tmp_path) as (_, environment):
        settings = nats | environment | {"store_url": "s3://builds/store"}
        async with running_builder(tmp_path / "s3", buildkitd, **settings) as builder:
            client = QueueClient(http, builder.url)
            build_id = await client.submitted(tiny("s3"))
            assert (await client.until(build_id, *ENDS))["status"] == "success"
            assert await client.log(build_id)
