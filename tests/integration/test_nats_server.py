"""The embedded nats-server: what it keeps, whom it serves, and how it comes back."""

import asyncio
import base64
import binascii
import os
import signal
import stat

import nats
import pytest

from function_builder.engine import NatsServer
from function_builder.queue.jetstream import Access, JetStream, Unavailable
from function_builder.queue.nkeys import NKey

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


async def test_a_client_without_its_token_is_refused(tmp_path):
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
        assert "Plaintext" not in (tmp_path / "log").read_text()


@pytest.fixture
def seed():
    """An NKey seed of a user: a prefix of two bytes, 32 bytes and a CRC, in base32."""
    raw = bytes([18 << 3 | (20 << 3) >> 5, 0]) + os.urandom(32)
    crc = binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw + crc).decode().rstrip("=")


async def test_a_user_proves_itself_with_an_nkey(tmp_path, seed, monkeypatch):
    path = tmp_path / "user.nk"
    path.write_text(seed + "\n")
    server = NatsServer(tmp_path / "nats", log=tmp_path / "log")
    config = server._config

    def with_user():
        return config() | {"authorization": {"users": [{"nkey": NKey(str(path)).public}]}}

    monkeypatch.setattr(server, "_config", with_user)
    async with server:
        address = "nats://" + server.url.rpartition("@")[2]
        jetstream = JetStream(Access(url=address, nkey_seed=str(path)))
        await jetstream.connect()
        assert jetstream.connected
        await jetstream.close()


async def test_a_key_that_is_none_or_a_server_that_is_away_is_one_line(tmp_path, seed):
    path = tmp_path / "user.nk"
    for text in ("", seed[:-1] + ("A" if seed[-1] != "A" else "B"), seed.replace("SU", "SA", 1)):
        path.write_text(text)
        jetstream = JetStream(Access(url="nats://127.0.0.1:9", nkey_seed=str(path)))
        with pytest.raises(Unavailable, match="seed"):
            await jetstream.connect()
