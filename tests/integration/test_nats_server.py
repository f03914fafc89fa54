"""The embedded nats-server: what it keeps, whom it serves, and how it comes back."""

import asyncio
import os
import signal
import stat

import nats
import pytest

from function_builder.engine import NatsServer

pytestmark = pytest.mark.integration


async def test_what_it_acknowledged_outlives_a_kill_and_a_restart(tmp_path):
    async with NatsServer(tmp_path, log=tmp_path / "log") as server:
        client = await nats.connect(server.url, reconnect_time_wait=0.1)
        context = client.jetstream()
        await context.add_stream(name="kept", subjects=["kept.>"])
        await context.publish("kept.one", b"1")
        first = server.pid
        back = asyncio.Event()

        async def note():
            back.set()

        client._reconnected_cb = note
        os.killpg(first, signal.SIGKILL)
        async with asyncio.timeout(30):
            await back.wait()
        assert server.pid != first
        assert (await context.get_msg("kept", 1)).data == b"1"
        await client.close()
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    async with NatsServer(tmp_path, log=tmp_path / "log") as server:
        client = await nats.connect(server.url)
        assert (await client.jetstream().get_msg("kept", 1)).data == b"1"
        await client.close()


async def test_a_client_without_its_password_is_refused(tmp_path):
    async with NatsServer(tmp_path, log=tmp_path / "log") as server:
        host, _, port = server.url.rpartition("@")[2].partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"INFO ")
            writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
            assert await reader.readline() == b"-ERR 'Authorization Violation'\r\n"
        writer.close()
        await writer.wait_closed()
        mode = (tmp_path / "nats-server.json").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
