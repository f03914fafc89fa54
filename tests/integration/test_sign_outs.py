"""The sign-outs of browsers in a real NATS, which all builders share."""

import pytest

from function_builder.engine import NatsServer
from function_builder.queue.access import Access
from function_builder.queue.connection import Unavailable
from function_builder.queue.jetstream import JetStream
from function_builder.queue.sign_outs import StoredSignOuts

pytestmark = pytest.mark.integration


async def test_a_sign_out_is_known_to_all_builders(tmp_path):
    async with NatsServer(tmp_path / "nats", log=tmp_path / "nats.log") as server:
        connections = [JetStream(Access(url=server.url)) for _ in range(2)]
        one, other = (StoredSignOuts(connection, 1) for connection in connections)
        with pytest.raises(Unavailable):
            await one.contain("a session")
        for connection in connections:
            await connection.connect()
        try:
            assert not await other.contain("a session")
            await one.add("a session")
            await one.add("a session")
            assert await other.contain("a session")
            assert not await other.contain("another session")
            stored = await connections[0].from_sequence("KV_sign_outs", "$KV.sign_outs.>", 1, 9)
            assert [(each.data, "session" in each.subject) for each in stored] == [(b"", False)]
        finally:
            for connection in connections:
                await connection.close()
