"""A builder below a path of a proxy: what a client signs is what the builder receives."""

import asyncio
from contextlib import aclosing

import pytest

from function_builder.client import AsyncClient, BuildState
from function_builder.engine import NatsServer
from tests.support.builders import running_builder
from tests.support.http_proxies import nginx
from tests.support.queued import QueueClient, tiny
from tests.support.requests import SECRET

pytestmark = pytest.mark.integration


async def test_a_signature_covers_the_target_without_the_path_that_a_proxy_removes(tmp_path, http):
    """No BuildKit answers, so builds stay in the queue."""
    async with (
        NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as nats,
        running_builder(
            tmp_path / "b",
            "unix:///absent",
            wait_for="/healthz",
            nats_url=nats.url,
            store_url=(tmp_path / "store").as_uri(),
        ) as builder,
        nginx(tmp_path / "n", builder.url, prefix="/team/builder") as url,
        AsyncClient(f"{url}/build", payload_secret=SECRET.encode()) as client,
        asyncio.timeout(90),
    ):
        build = await client.submit(files={"Dockerfile": "FROM scratch\n"}, image="r/a:1")
        assert (await build.status()).state is BuildState.QUEUED
        async with aclosing(client.builds(status=[BuildState.QUEUED], repository="r/a")) as found:
            assert [info.id async for info in found] == [build.id]
        assert (await build.cancel()).state is BuildState.CANCELLED

        plain = QueueClient(http, url)
        build_id = await plain.submitted(tiny())
        assert (await plain.get(build_id))["status"] == "queued"
        assert (await plain.ask("DELETE", f"/builds/{build_id}")).status_code == 200
        log = await plain.ask("GET", f"/builds/{build_id}/log?after=0")
        assert log.status_code == 200

        wrong = QueueClient(http, url.removesuffix("/team/builder"))
        assert (await wrong.ask("GET", f"/team/builder/builds/{build_id}")).status_code == 401
