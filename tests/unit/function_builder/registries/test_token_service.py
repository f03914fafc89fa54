"""HTTP to token services: what is sent, and every way in which no answer comes."""

import asyncio
import os
import ssl

import pytest
import trustme

from aiobuildkit import HTTPRequest, HTTPResponse
from function_builder.registries import token_service as module
from function_builder.registries.token_service import TokenServiceHTTP
from tests.support import free_address
from tests.support.servers import serving


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


def post(address: str, path: str = "/token") -> HTTPRequest:
    return HTTPRequest("POST", f"http://{address}{path}", {"X-A": "b"}, b"password=swordfish")


def get(address: str, path: str = "/token") -> HTTPRequest:
    return HTTPRequest("GET", f"http://{address}{path}", {"Authorization": "Basic c3dvcmRmaXNo"})


def answering(*answers: bytes, heads: list[bytes]):
    """Gives each request the next answer, and ends its connection."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(left.pop(0))
        await writer.drain()

    return serving(serve)


async def test_a_request_and_its_answer():
    heads: list[bytes] = []
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}"
    async with answering(answer, heads=heads) as address:
        assert await TokenServiceHTTP().send(post(address)) == HTTPResponse(503, b"{}", 7)
    assert heads[0].startswith(b"POST /token HTTP/1.1\r\n")
    assert b"x-a: b" in heads[0].lower()
    assert b"user-agent: function-builder/" in heads[0].lower()


async def test_a_password_is_not_sent_on():
    heads: list[bytes] = []
    moved = b"HTTP/1.1 307 Moved\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
    async with answering(moved, moved, good, heads=heads) as address:
        assert (await TokenServiceHTTP().send(post(address))).status == 307
        assert (await TokenServiceHTTP().send(get(address))).body == b"good"
    assert heads[-1].startswith(b"GET /there ")


async def test_a_huge_answer_is_cut():
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
            await writer.drain()

    async with serving(endless) as address:
        answer = await TokenServiceHTTP().send(get(address))
    assert len(answer.body) == module.MAX_ANSWER_BYTES


@pytest.mark.parametrize("dribbling", [False, True])
async def test_a_slow_answer_is_not_waited_for(monkeypatch, dribbling):
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            if dribbling:
                writer.write(b" ")
            await asyncio.sleep(0.01)

    async with serving(slow) as address:
        http = TokenServiceHTTP()
        # The library and the authorities are loaded outside of the bound.
        http._trust = await asyncio.to_thread(module._load)
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
        with pytest.raises(OSError, match=r"^$|Timeout"):
            await http.send(get(address))


@pytest.mark.parametrize(
    "url", ["http://host.invalid/token", "http://127.0.0.1:1/", "http://a b/", "http://[::1/", "x:"]
)
async def test_what_cannot_be_reached_is_an_error_of_the_network(url):
    with pytest.raises(OSError, match=r"\w"):
        await TokenServiceHTTP().send(HTTPRequest("GET", url, {}))


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n\r\n"])
async def test_what_is_no_http_is_an_error_of_the_network(answer):
    async with answering(answer, heads=[]) as address:
        with pytest.raises(ConnectionError):
            await TokenServiceHTTP().send(get(address))


async def test_other_authorities_are_named_as_openssl_reads_them(tmp_path, monkeypatch):
    ca, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(server)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with serving(serve, tls=server) as address:
        request = HTTPRequest("GET", f"https://{address}/token", {})
        with pytest.raises(ConnectionError, match="certificate"):
            await TokenServiceHTTP().send(request)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert (await TokenServiceHTTP().send(request)).status == 200


async def test_proxies_of_the_environment_are_used_but_for_this_machine(monkeypatch):
    heads: list[bytes] = []
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with answering(answer, heads=heads) as proxy, answering(answer, heads=[]) as here:
        monkeypatch.setenv("http_proxy", f"http://{proxy}")
        await TokenServiceHTTP().send(get("auth.invalid"))
        await TokenServiceHTTP().send(get(here))
    assert heads[0].startswith(b"GET http://auth.invalid/token ")
    assert len(heads) == 1


def test_a_free_port_is_no_service():
    with pytest.raises(OSError, match=r"\w"):
        asyncio.run(TokenServiceHTTP().send(get(free_address())))
