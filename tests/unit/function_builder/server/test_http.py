"""What a connection may take of the server before it has sent a request's body."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest

from function_builder.server import http
from function_builder.server.run import _listening
from tests.support import free_address

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def count(scope, receive, send):
    """Answer with the length of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    length = b"%d" % size
    headers = [(b"content-length", b"%d" % len(length))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": length})


@asynccontextmanager
async def connected():
    host, port = free_address().split(":")
    async with _listening(count, (host, int(port))):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield reader, writer
        finally:
            writer.close()


async def sent_until_cut(writer, piece: bytes) -> int:
    """How many bytes are taken before the connection is cut."""
    sent = 0
    try:
        while sent < 100 << 20:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
    except ConnectionError:
        pass
    return sent


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD, b"A: %s\r\n" % bytes(1000).replace(b"\0", b"a")),
        (HEAD + b"A: ", b"a" * 1000),
        (b"GET /", b"a" * 1000),
        (CHUNKED + b"1\r\na\r\n0\r\n", b"A: b\r\n" * 100),
        (CHUNKED + b"1\r\na\r\n0\r\nA: ", b"a" * 1000),
        (CHUNKED + b"1;", b"a" * 1000),
    ],
    ids=["headers", "header", "path", "trailers", "trailer", "extension"],
)
async def test_what_is_no_body_has_an_end(start, piece):
    async with connected() as (_, writer), asyncio.timeout(20):
        writer.write(start)
        # What lies in the sockets' buffers counts as sent.
        assert await sent_until_cut(writer, piece) < 32 << 20


async def test_a_body_may_come_in_the_smallest_of_chunks():
    async with connected() as (reader, writer), asyncio.timeout(20):
        writer.write(CHUNKED + b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(6) == b"100000"


@pytest.mark.parametrize("sent", [b"", b"G", HEAD], ids=["nothing", "a byte", "half a head"])
async def test_headers_that_do_not_come_are_not_waited_for(monkeypatch, sent):
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.1)
    async with connected() as (reader, writer), asyncio.timeout(20):
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""


async def test_an_upload_may_take_longer_than_its_headers(monkeypatch):
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.1)
    async with connected() as (reader, writer), asyncio.timeout(20):
        for piece in (CHUNKED, b"1\r\na\r\n", b"0\r\n\r\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.2)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
