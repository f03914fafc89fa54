"""Connecting: addresses, TLS, and peers that are not what they should be."""

import asyncio
import dataclasses
import itertools
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from aiobuildkit import (
    Client,
    ConnectionFailed,
    ConnectionLost,
    ProtocolError,
    Timeouts,
    TLSConfig,
)
from aiobuildkit.protos import control_pb2 as pb
from aiobuildkit.rpc.connection import Address, Connection, connect
from aiobuildkit.rpc.stream import ClientStream
from tests.support import free_address, until
from tests.support.servers import serving
from tests.unit.aiobuildkit.fake_buildkit import CONTROL, Call, FakeBuildKit, Wire

DATA_OF_NO_STREAM = bytes(9)
"""A frame that is a connection error (RFC 9113, 6.1)."""


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:///run/bk.sock", Address(path="/run/bk.sock")),
        ("unix://relative/bk.sock", Address(path="relative/bk.sock")),
        ("unix:///run/a%20b?c#d.sock", Address(path="/run/a%20b?c#d.sock")),
        ("tcp://buildkitd:1234", Address(host="buildkitd", port=1234)),
        ("tcp://[::1]:1234/", Address(host="::1", port=1234)),
    ],
)
def test_addresses(text, address):
    assert Address.parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "buildkitd:1234",
        "http://a:1",
        "unix://",
        "tcp://a",
        "tcp://:1",
        "tcp://a:1/b",
        "tcp://a:x",
    ],
)
def test_what_is_no_address_is_refused_when_the_client_is_made(text):
    with pytest.raises(ValueError, match=r"address|[Pp]ort"):
        Client(text)


def test_tls_is_not_for_unix_sockets():
    with pytest.raises(ValueError, match="tcp://"):
        Client("unix:///run/bk.sock", tls=TLSConfig())


async def info(call: Call) -> None:
    version = pb.BuildKitVersion(package="p", version="v1", revision="r")
    call.respond()
    await call.send(pb.InfoResponse(version=version).SerializeToString())
    call.finish()


@asynccontextmanager
async def listening(handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A TCP server on which anything may happen."""
    async with serving(handler, tls=tls) as address:
        yield f"tcp://{address}"


async def serve_info(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    wire = Wire(writer.write, client=False)
    while data := await reader.read(65536):
        try:
            wire.receive_data(data)
        except H2Error:
            return
        while not wire.opened.empty():
            call = wire.opened.get_nowait()
            await info(call)


async def failure(address: str, **options) -> ConnectionFailed:
    async with Client(address, **options) as client:
        with pytest.raises(ConnectionFailed) as caught:
            await client.info()
    assert caught.value.address == address
    return caught.value


async def test_tcp_without_tls():
    async with listening(serve_info) as address, Client(address) as client:
        assert (await client.info()).version == "v1"


async def test_a_port_where_nobody_listens():
    error = await failure(f"tcp://{free_address()}")
    assert isinstance(error.__cause__, ConnectionRefusedError)


async def test_a_host_that_does_not_exist():
    await failure("tcp://no-such-host.invalid:1234")


async def test_a_peer_that_says_nothing():
    async def say_nothing(reader, writer):
        await reader.read()

    async with listening(say_nothing) as address:
        error = await failure(address, timeouts=Timeouts(connect=0.1))
    assert "no answer within 0.1 s" in str(error)


async def test_a_peer_that_closes_at_once():
    async def close(reader, writer):
        pass

    async with listening(close) as address:
        assert isinstance((await failure(address)).__cause__, ConnectionLost)


async def test_a_peer_that_speaks_http1():
    async def refuse(reader, writer):
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        await reader.read()

    async with listening(refuse) as address:
        assert isinstance((await failure(address)).__cause__, ProtocolError)


class Authority:
    """A certificate authority, with the files that it gives to a client and a server."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._directory = directory
        self.ca = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))

    def issue(self, name: str) -> tuple[Path, Path]:
        cert, key = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        issued = self._ca.issue_cert(name)
        issued.private_key_pem.write_to_path(str(key))
        cert.unlink(missing_ok=True)
        for pem in issued.cert_chain_pems:
            pem.write_to_path(str(cert), append=True)
        return cert, key

    def server(self, name: str = "buildkitd.test", *, alpn: str = "h2") -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.load_cert_chain(*self.issue(name))
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols([alpn])
        return context

    def client(self, server_name: str | None = "buildkitd.test") -> TLSConfig:
        cert, key = self.issue("client.test")
        return TLSConfig(ca=self.ca, cert=cert, key=key, server_name=server_name)


async def test_mutual_tls(tmp_path):
    authority = Authority(tmp_path)
    async with listening(serve_info, tls=authority.server()) as address:
        version = await Client(address, tls=authority.client()).info()
    assert version.version == "v1"


def openssl(directory: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=directory, check=True, capture_output=True)


def certificates_without_key_identifiers(directory: Path) -> None:
    """An authority, a server's and a client's certificate, as Docker's documentation makes them."""
    key = "-newkey rsa:2048 -nodes"
    openssl(directory, f"req -x509 {key} -subj /CN=authority -keyout ca.key -out ca.crt")
    for name, extensions in (
        ("server", "subjectAltName=DNS:buildkitd.test\nextendedKeyUsage=serverAuth\n"),
        ("client", "extendedKeyUsage=clientAuth\n"),
    ):
        (directory / "extensions").write_text(extensions)
        openssl(directory, f"req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr")
        signed = f"-in {name}.csr -out {name}.crt -extfile extensions"
        openssl(directory, f"x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial {signed}")


async def test_certificates_of_dockers_recipe_are_accepted(tmp_path):
    """Go accepts them; Python 3.13 and newer refuse them by default."""
    certificates_without_key_identifiers(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server.load_verify_locations(tmp_path / "ca.crt")
    server.verify_mode = ssl.CERT_REQUIRED
    server.set_alpn_protocols(["h2"])
    tls = TLSConfig(
        ca=tmp_path / "ca.crt",
        cert=tmp_path / "client.crt",
        key=tmp_path / "client.key",
        server_name="buildkitd.test",
    )
    async with listening(serve_info, tls=server) as address:
        version = await Client(address, tls=tls).info()
    assert version.version == "v1"


async def test_without_a_server_name_the_addresss_host_must_be_certified(tmp_path):
    authority = Authority(tmp_path)
    async with listening(serve_info, tls=authority.server("127.0.0.1")) as address:
        version = await Client(address, tls=authority.client(None)).info()
    assert version.version == "v1"


async def test_an_ssl_context_is_used_as_it_is(tmp_path):
    authority = Authority(tmp_path)
    context = ssl.create_default_context(cafile=authority.ca)
    async with listening(serve_info, tls=authority.server("127.0.0.1")) as address:
        await failure(address, tls=context)  # the server demands a certificate
        ours = authority.client()
        assert ours.cert is not None
        context.load_cert_chain(ours.cert, ours.key)
        context.set_alpn_protocols(["http/1.1"])
        assert (await Client(address, tls=context).info()).version == "v1"
        await failure(address, tls=ssl.create_default_context())


async def test_certificates_are_read_afresh_for_each_connection(tmp_path):
    authority = Authority(tmp_path)
    tls = authority.client()
    other = Authority(tmp_path, "other")
    async with listening(serve_info, tls=authority.server()) as address:
        client = Client(address, tls=tls)
        await client.info()
        rotated = other.client()
        assert (rotated.cert, rotated.key) == (tls.cert, tls.key)
        with pytest.raises(ConnectionFailed):
            await client.info()
        authority.client()
        await client.info()


async def test_a_server_with_another_name(tmp_path):
    authority = Authority(tmp_path)
    async with listening(serve_info, tls=authority.server()) as address:
        error = await failure(address, tls=authority.client("elsewhere.test"))
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def test_a_server_that_another_authority_signed(tmp_path):
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    async with listening(serve_info, tls=other.server()) as address:
        error = await failure(address, tls=authority.client())
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def test_a_client_without_certificate_is_told_so_while_connecting(tmp_path):
    # With TLS 1.3 the server refuses only after the client's handshake is over.
    authority = Authority(tmp_path)
    tls = TLSConfig(ca=authority.ca, server_name="buildkitd.test")
    async with listening(serve_info, tls=authority.server()) as address:
        await failure(address, tls=tls)


async def test_a_server_that_does_not_agree_on_h2(tmp_path):
    authority = Authority(tmp_path)
    async with listening(serve_info, tls=authority.server(alpn="http/1.1")) as address:
        assert "ALPN" in str(await failure(address, tls=authority.client()))


async def test_closing_does_not_wait_for_the_tls_of_a_peer_that_erred(tmp_path):
    async def err(reader, writer):
        await reader.readexactly(24)
        # It does not answer the end of TLS either.
        writer.transport.pause_reading()
        writer.write(DATA_OF_NO_STREAM)
        await asyncio.sleep(100)

    authority = Authority(tmp_path)
    async with listening(err, tls=authority.server()) as address, asyncio.timeout(20):
        timeouts = Timeouts(connect=60, close=0.1)
        error = await failure(address, tls=authority.client(), timeouts=timeouts)
    assert isinstance(error.__cause__, ProtocolError)


@pytest.mark.parametrize("missing", ["ca", "cert", "key"])
async def test_a_file_that_cannot_be_read(tmp_path, missing):
    authority = Authority(tmp_path)
    tls = dataclasses.replace(authority.client(), **{missing: tmp_path / "none"})
    async with listening(serve_info, tls=authority.server()) as address:
        await failure(address, tls=tls)


async def test_plain_text_to_a_tls_port(tmp_path):
    authority = Authority(tmp_path)
    async with listening(serve_info, tls=authority.server()) as address:
        await failure(address)


async def test_tls_to_a_plain_text_port(tmp_path):
    authority = Authority(tmp_path)
    async with listening(serve_info) as address:
        await failure(address, tls=authority.client(), timeouts=Timeouts(connect=2))


async def greet_and_stop_reading(reader, writer):
    """Open windows wide for what is never read."""
    wire = Wire(writer.write, client=False)
    wire.receive_data(await reader.readexactly(24))
    wire.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
    wire.h2.increment_flow_control_window(2**30)
    wire.flush()
    writer.transport.pause_reading()


async def flood(call: ClientStream) -> None:
    for sent in itertools.count():
        assert sent < 32, "what the socket does not take must not pile up"
        await call.send(bytes(1 << 20))


async def flooded(here: Connection) -> asyncio.Task[None]:
    """Send until the peer takes no more; the sending goes on."""
    flooding = asyncio.create_task(flood(here.channel.open("/a/b")))
    await until(lambda: here._resumed is not None)
    # What is sent now piles up here, if anywhere.
    for _ in range(100):
        await asyncio.sleep(0)
    assert not flooding.done()
    return flooding


async def test_closing_does_not_wait_for_a_peer_that_reads_nothing():
    async def stop_reading(reader, writer):
        await greet_and_stop_reading(reader, writer)
        await asyncio.sleep(100)

    async with listening(stop_reading) as address:
        async with connect(address, connect_timeout=60, close_timeout=0.1) as here:
            flooding = await flooded(here)
        with pytest.raises(ConnectionLost):
            await flooding


async def test_closing_sends_what_a_slow_peer_still_takes():
    closing, took = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def read_late(reader, writer):
        await greet_and_stop_reading(reader, writer)
        await closing.wait()
        writer.transport.resume_reading()
        took.set_result(len(await reader.read(-1)))

    async with listening(read_late) as address:
        async with connect(address, connect_timeout=60, close_timeout=60) as here:
            call = here.channel.open("/a/b")
            await call.send(bytes(16 << 20))
            # The windows have come, and all is on its way out.
            await until(lambda: not here.channel.unsent(1))
            asyncio.get_running_loop().call_soon(closing.set)
        assert await took >= 16 << 20


async def test_closing_that_is_cancelled_leaves_no_socket():
    cancelled, gone = asyncio.Event(), asyncio.Event()

    async def stop_reading(reader, writer):
        await greet_and_stop_reading(reader, writer)
        await cancelled.wait()
        try:
            # A socket that is still there takes this; one that is not answers with a reset.
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    async with listening(stop_reading) as address:
        async with connect(address, connect_timeout=60, close_timeout=60) as here:
            flooding = await flooded(here)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(here.close(), 0.1)
            cancelled.set()
            await gone.wait()
        with pytest.raises(ConnectionLost):
            await flooding


async def test_what_was_said_just_before_closing_is_sent(tmp_path):
    async def wait(call: Call) -> None:
        await call.was_reset.wait()

    async with FakeBuildKit(tmp_path, a=wait) as buildkit:
        async with connect(buildkit.address, connect_timeout=60) as here:
            call = here.channel.open(f"{CONTROL}a")
            await call.send(b"")
            await until(lambda: bool(buildkit.wires[0].calls))
            call.cancel()
        await buildkit.gone.wait()
        assert buildkit.wires[0].calls[1].reset_code == ErrorCodes.CANCEL


async def test_a_peer_that_vanishes_ends_every_call(tmp_path):
    async def vanish(call: Call) -> None:
        await call.receive()
        call.vanish()

    async def wait(call: Call) -> None:
        await call.ended.wait()

    async with (
        FakeBuildKit(tmp_path, a=vanish, b=wait) as buildkit,
        connect(buildkit.address, connect_timeout=60) as here,
    ):
        waiting = here.channel.open(f"{CONTROL}b")
        call = here.channel.open(f"{CONTROL}a")
        await call.send(b"go")
        for each in (waiting, call):
            with pytest.raises(ConnectionLost):
                await each.receive()
        with pytest.raises(ConnectionLost):
            await waiting.send(b"more")
        with pytest.raises(ConnectionLost):
            here.channel.open(f"{CONTROL}c")


async def test_after_a_graceful_goaway_no_call_can_be_made(tmp_path):
    async def leave(call: Call) -> None:
        call.wire.goaway(ErrorCodes.NO_ERROR, 2**31 - 1)
        await call.wire.round_trip()
        await info(call)

    async with (
        FakeBuildKit(tmp_path, Info=leave) as buildkit,
        connect(buildkit.address, connect_timeout=60) as here,
    ):
        call = here.channel.open(f"{CONTROL}Info")
        await call.send(b"")
        assert pb.InfoResponse.FromString(await call.receive() or b"").version.version == "v1"
        with pytest.raises(ConnectionLost, match="closing the connection"):
            here.channel.open(f"{CONTROL}Info")
