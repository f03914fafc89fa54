"""Two builders and NATS: a tenant's limits and usage are one, and outlive builders."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from function_builder.contract.reads import sign_read
from function_builder.engine import NatsServer
from function_builder.queue.access import Access
from function_builder.queue.jetstream import JetStream
from function_builder.queue.streams import BUILDER_SUBJECTS, BUILDERS
from tests.support import paused, until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.queued import slow, tiny
from tests.support.requests import signature

pytestmark = pytest.mark.integration

ACME = "the payload secret of acme"
FILE = "tenants:\n  acme: {payload_secret_file: acme, max_inflight: 1, builds_per_hour: 4}\n"

ALONE = "NATS does not answer: max_inflight of tenants holds for this builder alone"
AGAIN = "max_inflight of tenants holds over all builders again"


def signed(body: bytes) -> dict[str, str]:
    return {"X-Build-Signature": signature(body, ACME), "X-Build-Tenant": "acme"}


async def build(http: httpx2.AsyncClient, builder: RunningBuilder) -> httpx2.Response:
    body = tiny()
    return await http.post(f"{builder.url}/build", content=body, headers=signed(body))


@asynccontextmanager
async def running(http: httpx2.AsyncClient, builder: RunningBuilder) -> AsyncIterator[None]:
    """A synchronous build that has a slot of a builder; it is cancelled at the end."""
    body = slow(name=builder.url)
    headers = signed(body) | {"Accept": "application/x-ndjson"}
    url = f"{builder.url}/build"
    async with http.stream("POST", url, content=body, headers=headers) as answer:
        # Not `async for`: leaving it closes the connection.
        lines = answer.aiter_lines()
        while "begun" not in await anext(lines):
            pass
        yield


async def usage(http: httpx2.AsyncClient, builder: RunningBuilder) -> list[dict[str, Any]]:
    """The tenant's usage of this month and the day before: the test may run at midnight."""
    first = datetime.now(UTC).date().replace(day=1) - timedelta(days=1)
    target = f"/usage?from={first}"
    sign = sign_read(ACME.encode(), "GET", target, time.time()) | {"X-Build-Tenant": "acme"}
    answer = await http.get(builder.url + target, headers=sign)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["usage"]
    return rows


async def until_successes(http: httpx2.AsyncClient, builder: RunningBuilder, number: int) -> None:
    """Wait until a builder answers so many successful builds, of all builders."""
    found = -1
    async with asyncio.timeout(60):
        while found != number:
            rows = await usage(http, builder)
            found = sum(row["builds"].get("success", 0) for row in rows)
            await asyncio.sleep(0.05)


async def end_heartbeats(url: str) -> None:
    """Remove the heartbeats of all builders, as NATS does a minute after the last one."""
    jetstream = JetStream(Access(url=url))
    await jetstream.connect()
    await jetstream.purge(BUILDERS, f"{BUILDER_SUBJECTS}.*")
    await jetstream.close()


def said(builder: RunningBuilder, event: str) -> int:
    return sum(line.get("event") == event for line in builder.lines())


async def test_limits_and_usage_are_those_of_all_builders(tmp_path, buildkitd):
    (tmp_path / "acme").write_text(ACME)
    (tmp_path / "tenants.yaml").write_text(FILE)
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(
            NatsServer(tmp_path / "nats", log=tmp_path / "nats.log")
        )
        http = await stack.enter_async_context(httpx2.AsyncClient(timeout=60))

        def builder(name: str) -> Any:
            return running_builder(
                tmp_path / name,
                buildkitd,
                nats_url=nats.url,
                store_url=(tmp_path / "store").as_uri(),
                tenants_file=str(tmp_path / "tenants.yaml"),
            )

        first = await stack.enter_async_context(builder("a"))
        second = await stack.enter_async_context(builder("b"))
        assert (await build(http, first)).status_code == 200
        async with running(http, first):
            refused = await build(http, second)
            assert (refused.status_code, refused.headers["RateLimit-Policy"]) == (
                429,
                '"max_inflight";q=1',
            )
            # NATS says nothing, and its connection stays: the second builder counts alone.
            async with paused(nats.pid):
                assert (await build(http, second)).status_code == 200
            await until(lambda: said(second, AGAIN))
            assert said(second, ALONE) == 1
            assert (await build(http, second)).status_code == 429
            # A builder writes its usage once a second, and loses what it has not written.
            await until_successes(http, second, 2)
            first.process.kill()
            await first.process.wait()
        await end_heartbeats(nats.url)
        assert (await build(http, second)).status_code == 200
        second.terminate()
        await second.process.wait()

        # No builder is left that knew of them.
        third = await stack.enter_async_context(builder("c"))
        await until_successes(http, third, 3)
        assert (await build(http, third)).status_code == 200
        over = await build(http, third)
        assert (over.status_code, over.headers["RateLimit-Policy"]) == (429, '"builds";q=4;w=3600')
