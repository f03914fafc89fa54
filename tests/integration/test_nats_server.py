"""The embedded nats-server: what it keeps, whom it serves, and how it comes back."""

import asyncio
import base64
import binascii
import os
import re
import signal
import stat

import nats
import pytest
import trustme

from function_builder.engine import NatsServer
from function_builder.errors import StartError
from function_builder.queue.access import Access
from function_builder.queue.connection import Rejected, Unavailable
from function_builder.queue.jetstream import JetStream
from function_builder.queue.nkeys import NKey
from function_builder.queue.streams import streams
from function_builder.server.run import serve
from function_builder.settings import Settings
from tests.support.nats_users import Operator, configured

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
        async with asyncio.timeout(60):
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
        async with asyncio.timeout(60):
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
    users = {"users": [{"nkey": NKey(str(path)).public}]}
    async with configured(monkeypatch, tmp_path, authorization=users) as server:
        await use(url="nats://" + server.url.rpartition("@")[2], nkey_seed=str(path))


async def use(**access: str) -> None:
    """Connect, and create the streams."""
    jetstream = JetStream(Access(**access))
    await jetstream.connect()
    try:
        for config in streams(1, 60):
            await jetstream.ensure_stream(config)
    finally:
        await jetstream.close()


async def refused(**access: str) -> str:
    """Why the connection fails; a server that answers is not asked again."""
    with pytest.raises(Rejected) as error:
        async with asyncio.timeout(60):
            await use(**access)
    (line,) = str(error.value).splitlines()
    return line


async def test_a_user_proves_itself_with_credentials(tmp_path, monkeypatch):
    operator, other = Operator(), Operator()
    async with configured(monkeypatch, tmp_path, authorization=None, **operator.config()) as server:
        url = "nats://" + server.url.rpartition("@")[2]
        await use(url=url, credentials=str(operator.credentials(tmp_path / "ours.creds")))
        for credentials in ("", str(other.credentials(tmp_path / "theirs.creds"))):
            assert "refuses the user" in await refused(url=url, credentials=credentials)
        (tmp_path / "empty.creds").touch()
        for name in ("empty.creds", "absent.creds"):
            line = await refused(url=url, credentials=str(tmp_path / name))
            assert line.startswith("nats_credentials_file cannot be used: ")


async def test_tls_is_verified_and_never_left_out(tmp_path, monkeypatch):
    authority = trustme.CA()
    names = {name: str(tmp_path / name) for name in ("ca", "other", "server", "builder")}
    authority.cert_pem.write_to_path(names["ca"])
    trustme.CA().cert_pem.write_to_path(names["other"])
    for name, subject in (("server", "127.0.0.1"), ("builder", "builder.internal")):
        issued = authority.issue_cert(subject)
        issued.private_key_and_cert_chain_pem.write_to_path(names[name])
    tls = {
        "cert_file": names["server"],
        "key_file": names["server"],
        "ca_file": names["ca"],
        "verify": True,
    }
    async with configured(monkeypatch, tmp_path, tls=tls) as server:
        url = server.url
        for scheme in ("nats", "tls"):
            asked = url.replace("nats", scheme)
            await use(url=asked, ca=names["ca"], cert=names["builder"])
            assert "cannot be verified" in await refused(url=asked)
        assert "check nats_ca_file" in await refused(url=url, ca=names["other"])
        for given in ({"ca": "/absent"}, {"ca": names["ca"], "cert": names["ca"]}):
            line = await refused(url=url, **given)
            assert re.match("nats_(ca|cert)_file .*cannot be used: ", line)
    async with NatsServer(tmp_path / "plain", log=tmp_path / "log") as server:
        for given in (
            {"url": server.url, "ca": names["ca"]},
            {"url": server.url.replace("nats", "tls")},
        ):
            assert "no TLS" in await refused(**given)


async def test_a_builder_says_in_one_line_why_it_does_not_start(tmp_path, monkeypatch):
    async with configured(monkeypatch, tmp_path) as server:
        address = server.url.rpartition("@")[2]
        environment = {
            "disable_hmac": "true",
            "buildkit_url": "tcp://127.0.0.1:9",
            "listen": "127.0.0.1:0",
            "nats_url": f"nats://wrong@{address}",
            "store_url": (tmp_path / "store").as_uri(),
        }
        with pytest.raises(StartError) as error:
            await serve(Settings.from_environment(environment))
    assert str(error.value) == (
        "nats_url cannot be used: "
        "it refuses the user: check the password, the NKey or the credentials"
    )


async def test_a_key_that_is_none_or_a_server_that_is_away_is_one_line(tmp_path, seed):
    path = tmp_path / "user.nk"
    # Not the last letter, of which two bits mean nothing.
    damaged = seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:]
    for text in ("", damaged, seed.replace("SU", "SA", 1)):
        path.write_text(text)
        jetstream = JetStream(Access(url="nats://127.0.0.1:9", nkey_seed=str(path)))
        with pytest.raises(Unavailable, match="seed"):
            await jetstream.connect()
