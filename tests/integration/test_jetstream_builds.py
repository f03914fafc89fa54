"""The queue's port on a real nats-server, and a directory as its store."""

import pytest

from function_builder.engine import NatsServer
from function_builder.queue.builds import JetStreamBuilds
from function_builder.queue.jetstream import Access, JetStream
from function_builder.store import Store
from tests.support.port_behavior import PortBehavior

pytestmark = pytest.mark.integration


@pytest.fixture
async def builds(tmp_path):
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        jetstream = JetStream(Access(url=server.url))
        await jetstream.connect()
        store = Store((tmp_path / "store").as_uri())
        port = JetStreamBuilds(jetstream, store, history=3600, owner="tests")
        await port.prepare()
        yield port
        await port.writer.close(5)
        await jetstream.close()
        store.close()


class TestJetStreamBuilds(PortBehavior):
    pass
