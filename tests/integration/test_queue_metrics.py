"""What a builder's metrics say of the queue, on a real nats-server."""

import asyncio
import dataclasses

import pytest
from nats.js.api import AckPolicy, ConsumerConfig
from prometheus_client import generate_latest

from function_builder.contract.builds import new_id
from function_builder.contract.reader import Bytes
from function_builder.engine import NatsServer
from function_builder.queue import depth
from function_builder.queue.access import Access
from function_builder.queue.builds import JetStreamBuilds
from function_builder.queue.connection import Unavailable
from function_builder.queue.depth import OTHERS, measure
from function_builder.queue.jetstream import JetStream
from function_builder.queue.streams import JOB_SUBJECTS, JOBS
from function_builder.server.prometheus import Metrics
from function_builder.server.queue_metrics import QueueMetrics
from function_builder.store import Store, StoreError
from tests.support.port_behavior import submission

pytestmark = pytest.mark.integration


@pytest.fixture
async def server(tmp_path):
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as running:
        yield running


@pytest.fixture
async def builds(tmp_path, server):
    jetstream = JetStream(Access(url=server.url))
    await jetstream.connect()
    store = Store((tmp_path / "store").as_uri())
    port = JetStreamBuilds(jetstream, store, history=3600, owner="tests")
    await port.prepare()
    yield port
    await jetstream.close()
    store.close()


async def submit(builds, tenant: str, number: int) -> None:
    for _ in range(number):
        one = dataclasses.replace(submission(), id=new_id(), tenant=tenant, created=1000.0)
        await builds.submit(one, Bytes(b"tar"))


async def take(builds, tenant: str) -> None:
    """Begin a build as a worker does."""
    consumer = ConsumerConfig(
        durable_name=tenant,
        filter_subject=f"{JOB_SUBJECTS}.{tenant}",
        ack_policy=AckPolicy.EXPLICIT,
    )
    await builds.jetstream.ensure_consumer(JOBS, consumer)
    assert await builds.jetstream.next_job(JOBS, tenant) is not None


async def test_an_empty_queue_has_no_depth_and_no_age(builds):
    assert await measure(builds.jetstream, 1090.0) == ({}, {}, 0.0, 0)


async def test_builds_are_counted_by_tenant_and_by_whether_they_were_begun(builds):
    await submit(builds, "ours", 3)
    await submit(builds, "theirs", 1)
    await take(builds, "ours")
    await take(builds, "theirs")
    waiting, begun, oldest, _ = await measure(builds.jetstream, 1090.0)
    assert (waiting, begun) == ({"ours": 2, "theirs": 0}, {"ours": 1, "theirs": 1})
    assert oldest == 90


async def test_a_build_that_runs_is_not_the_oldest_that_waits(builds):
    await submit(builds, "ours", 1)
    await take(builds, "ours")
    assert (await measure(builds.jetstream, 1090.0)).oldest == 0


async def test_the_labels_of_many_tenants_are_bounded(builds, monkeypatch):
    monkeypatch.setattr(depth, "MAX_TENANTS", 2)
    for number, tenant in enumerate("abcd", start=1):
        await submit(builds, tenant, number)
    waiting, begun, *_ = await measure(builds.jetstream, 1090.0)
    assert waiting == {"d": 4, "c": 3, OTHERS: 3}
    assert begun == {"d": 0, "c": 0}


async def test_a_scrape_says_what_waits_and_while_nats_is_away_that_it_is(tmp_path):
    metrics = Metrics()

    async def scraped() -> str:
        await metrics.refreshers[0]()
        return generate_latest(metrics.registry).decode()

    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        jetstream = JetStream(Access(url=server.url))
        await jetstream.connect()
        store = Store((tmp_path / "store").as_uri())
        builds = JetStreamBuilds(jetstream, store, history=3600, owner="tests")
        await builds.prepare()
        QueueMetrics(metrics).show(jetstream)
        await submit(builds, "default", 2)
        said = await scraped()
    assert "function_builder_queue_up 1.0" in said
    assert 'function_builder_queue_builds{state="waiting",tenant="default"} 2.0' in said
    assert 'function_builder_queue_builds{state="begun",tenant="default"} 0.0' in said

    async with asyncio.timeout(60):
        while jetstream.connected:
            await asyncio.sleep(0.01)
    said = await scraped()
    await jetstream.close()
    store.close()
    assert "function_builder_queue_up 0.0" in said
    assert "function_builder_queue_builds{" not in said
    assert "function_builder_queue_oldest_waiting_seconds NaN" in said


async def test_what_nats_or_the_store_did_not_do_is_counted(server, monkeypatch):
    metrics = Metrics()
    counting = QueueMetrics(metrics)

    def counted(part: str, reason: str) -> float:
        return float(metrics.queue_failures.labels(part, reason)._value.get())

    jetstream = JetStream(Access(url=server.url), failed=counting.note_nats)
    await jetstream.connect()
    with pytest.raises(Unavailable):
        await jetstream.purge("absent", "any")
    await jetstream.close()
    assert counted("nats", "unavailable") == 1

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    store = Store("s3://builds", failed=counting.note_store)
    with pytest.raises(StoreError):
        await store.put("body", Bytes(b"tar"))
    store.close()
    assert counted("store", "unavailable") == 1
    counting.note_store(True)
    assert counted("store", "full") == 1
    assert counted("nats", "full") == 0


def test_a_builder_without_a_queue_says_nothing_of_one():
    assert b"_queue_" not in generate_latest(Metrics().registry)
