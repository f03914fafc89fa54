"""What a connection may take of the server beside its requests' bodies and their answers."""

import asyncio
import contextlib
from contextlib import asynccontextmanager
from unittest.mock import Mock

import pytest

from aiobuildkit.hostport import HostPort
from function_builder.server import http
from function_builder.server.connections import Connections
from function_builder.server.run import _listening
from tests.support import free_address, until

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
async def connected(app=count, connections=None):
    address = HostPort.parse(free_address())
    async with _listening(app, address, connections or Connections(620)):
        reader, writer = await asyncio.open_connection(*address)
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
    async with connected() as (_, writer), asyncio.timeout(60):
        writer.write(start)
        # What lies in the sockets' buffers counts as sent.
        assert await sent_until_cut(writer, piece) < 32 << 20


async def answer_to(reader, writer, sent):
    """Send bytes, and read until the connection's end."""
    writer.write(sent)
    return await reader.read()


@pytest.mark.parametrize("size", [1, 2, 16])
async def test_a_small_body_may_come_in_small_chunks(size):
    async with connected() as (reader, writer), asyncio.timeout(60):
        writer.write(CHUNKED + b"%x\r\n%b\r\n" % (size, b"a" * size) * 1000 + b"0\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert int(await reader.readexactly(len(str(size * 1000)))) == size * 1000


async def test_a_large_body_may_come_in_chunks_of_usual_sizes():
    chunks = [b"%x\r\n%b\r\n" % (size, bytes(size)) for size in (512, 40, 300)] * 3000
    async with connected() as (reader, writer), asyncio.timeout(60):
        writer.write(CHUNKED + b"".join(chunks) + b"0\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(7) == b"2556000"


@pytest.mark.parametrize("size", [1, 16])
async def test_a_body_in_tiny_chunks_ends_within_one_read(monkeypatch, size):
    """Each chunk is a call of Python: their number is bounded, not only their bytes."""
    pieces = Mock()
    monkeypatch.setattr(http.BoundedHTTP, "on_body", counting(http.BoundedHTTP.on_body, pieces))
    async with connected() as (reader, writer), asyncio.timeout(60):
        sent = CHUNKED + b"%x\r\n%b\r\n" % (size, b"a" * size) * 10_000
        answer = await answer_to(reader, writer, sent)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"chunks are smaller than 32 bytes" in answer
        assert pieces.call_count < 3000


def counting(method, calls):
    def called(self, *arguments):
        calls()
        return method(self, *arguments)

    return called


async def test_tiny_chunks_of_an_answered_request_are_not_parsed(monkeypatch):
    pieces = Mock()
    monkeypatch.setattr(http.BoundedHTTP, "on_body", counting(http.BoundedHTTP.on_body, pieces))
    async with connected(hasty) as (reader, writer), asyncio.timeout(60):
        writer.write(CHUNKED)
        assert (await reader.read()).startswith(b"HTTP/1.1 404")
        for _ in range(100):
            writer.write(b"1\r\na\r\n" * 10_000)
            await writer.drain()
        assert not pieces.called


@pytest.mark.parametrize("place", ["headers", "trailers"])
async def test_the_number_of_headers_is_bounded(place):
    many = b"a:b\r\n" * 2000
    sent = HEAD + many if place == "headers" else CHUNKED + b"1\r\na\r\n0\r\n" + many
    async with connected() as (reader, writer), asyncio.timeout(60):
        answer = await answer_to(reader, writer, sent + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.endswith(b"more than 128 headers.")


async def hasty(scope, receive, send):
    """Answer before the body is there."""
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body"})


async def test_an_answer_before_its_requests_end_is_read_by_a_client_that_sends_first():
    size = 20 << 20
    async with connected(hasty) as (reader, writer), asyncio.timeout(60):
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 20):
            writer.write(bytes(1 << 20))
            await writer.drain()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 404")
        assert b"connection: close\r\n" in answer


@pytest.mark.parametrize("unread", [b"", b"abc"], ids=["all", "part"])
async def test_a_head_in_one_read_with_the_rest_of_an_answered_body_is_no_request(unread):
    """As a proxy that shares connections would send it, which missed that this one ends."""
    offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    behind = HEAD + offer + b"Content-Length: %d\r\n\r\n" % len(smuggled) + smuggled
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["path"])
        await hasty(scope, receive, send)

    async with connected(app) as (reader, writer), asyncio.timeout(60):
        writer.write(HEAD + b"Content-Length: 6\r\n\r\n" + unread)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b"connection: close\r\n" in answer
        writer.write(b"abcdef"[len(unread) :] + behind)
        assert await reader.read() == b""
        assert seen == ["/"]


async def test_what_a_connect_request_carries_is_not_parsed():
    async with connected(hasty) as (reader, writer), asyncio.timeout(60):
        answer = await answer_to(reader, writer, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + HEAD)
        assert answer.count(b"HTTP/1.1") == 1


async def test_of_too_many_connections_the_source_with_most_loses_its_oldest():
    connections = Connections(620, most_pending=3)
    address = HostPort.parse(free_address())
    async with _listening(count, address, connections), asyncio.timeout(60):
        other = await asyncio.open_connection(*address, local_addr=("127.0.0.9", 0))
        strangers = []
        for _ in range(5):
            strangers.append(await asyncio.open_connection(*address))
            strangers[-1][1].write(HEAD)
        for reader, _ in strangers[:3]:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        for reader, writer in [other, strangers[-1]]:
            writer.write(REQUEST[len(HEAD) :] if writer is not other[1] else REQUEST)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for _, writer in [other, *strangers]:
            writer.close()


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_offer_of_another_protocol_is_ignored(at_once):
    """As curl --http2 and Java's HttpClient make it."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"
    pieces = [HEAD + offer + b"Content-Length: 7\r\n\r\n", b"abc", b"defg"]
    async with connected() as (reader, writer), asyncio.timeout(60):
        for _ in range(2):
            for piece in [b"".join(pieces)] if at_once else pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(1) == b"7"


@pytest.mark.parametrize("sent", [b"", b"G", HEAD], ids=["nothing", "a byte", "half a head"])
async def test_headers_that_do_not_come_are_not_waited_for(monkeypatch, sent):
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.1)
    async with connected() as (reader, writer), asyncio.timeout(60):
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""


async def test_an_upload_may_take_longer_than_its_headers(monkeypatch):
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.5)
    async with connected() as (reader, writer), asyncio.timeout(60):
        writer.write(CHUNKED + b"1\r\na\r\n")
        await asyncio.sleep(1)
        writer.write(b"0\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")


class Patient:
    """Answers with the body's length once it is let; notes that its client has gone."""

    def __init__(self) -> None:
        self.begun = 0
        self.let = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, scope, receive, send):
        self.begun += 1
        while (await receive()).get("more_body", False):
            pass
        watching = asyncio.create_task(self._watch(receive))
        letting = asyncio.create_task(self.let.wait())
        await asyncio.wait([watching, letting], return_when=asyncio.FIRST_COMPLETED)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        letting.cancel()
        await watching

    async def _watch(self, receive):
        assert (await receive())["type"] == "http.disconnect"
        self.gone.set()


REQUEST = HEAD + b"Content-Length: 2\r\n\r\nab"
BEHIND = [b"G", REQUEST, REQUEST * 100, HEAD + b"Content-Length: 999999\r\n\r\n" + bytes(9999)]


@pytest.mark.parametrize("behind", BEHIND, ids=["a byte", "a request", "many", "half a request"])
async def test_whoever_goes_is_missed_also_with_bytes_behind_the_request(behind):
    app = Patient()
    async with connected(app) as (_, writer), asyncio.timeout(60):
        writer.write(REQUEST)
        writer.write(behind)
        await writer.drain()
        writer.close()
        await app.gone.wait()
        assert app.begun == 1


async def test_of_two_requests_at_once_the_first_is_answered():
    app = Patient()
    async with connected(app) as (reader, writer), asyncio.timeout(60):
        writer.write(REQUEST * 2)
        app.let.set()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.count(b"HTTP/1.1") == 1
        assert app.begun == 1


async def test_bytes_behind_a_request_have_an_end():
    app = Patient()
    async with connected(app) as (_, writer), asyncio.timeout(60):
        assert await sent_until_cut(writer, REQUEST * 1000) < 32 << 20
        await app.gone.wait()


async def test_two_requests_one_after_the_other_are_both_answered():
    async with connected() as (reader, writer), asyncio.timeout(60):
        for _ in range(2):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(1) == b"2"


@pytest.mark.parametrize("pieces", [1, 1000], ids=["whole", "stream"])
async def test_an_answer_that_nobody_reads_is_not_kept(monkeypatch, pieces):
    monkeypatch.setattr(http, "READ_SECONDS", 0.2)
    gone = asyncio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(pieces):
            body = bytes((64 << 20) // pieces)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async with connected(app) as (reader, writer), asyncio.timeout(60):
        writer.write(REQUEST)
        await gone.wait()
        with contextlib.suppress(ConnectionError):
            assert len(await reader.read()) < 64 << 20


async def test_an_idle_connection_is_closed_after_its_time_and_not_before():
    loop = asyncio.get_running_loop()
    async with connected(connections=Connections(0.3)) as (reader, writer), asyncio.timeout(60):
        began = loop.time()
        assert await asked(reader, writer) == b"2"
        assert await reader.read() == b""
        assert loop.time() - began >= 0.3


@pytest.mark.parametrize("late", [b"\r\n", b"\r\n\r\n"])
async def test_bytes_that_begin_no_request_do_not_keep_a_connection(late):
    async with connected(connections=Connections(0.2)) as (reader, writer), asyncio.timeout(60):
        await asked(reader, writer)
        writer.write(late)
        assert await reader.read() == b""


async def test_a_body_that_an_answer_did_not_wait_for_has_an_end(monkeypatch):
    monkeypatch.setattr(http, "LINGER_SECONDS", 0.5)
    async with connected(hasty) as (reader, writer), asyncio.timeout(60):
        writer.write(HEAD + b"Content-Length: 1000000\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 404")
        # Bytes do not put it off.
        with pytest.raises(ConnectionError):
            await trickled(writer)


async def trickled(writer) -> None:
    """Send a byte at a time, for ever."""
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.05)


async def test_of_too_many_idle_connections_the_oldest_is_closed():
    connections = Connections(620, most_idle=2)
    address = HostPort.parse(free_address())
    async with _listening(count, address, connections), asyncio.timeout(60):
        peers = [await asyncio.open_connection(*address) for _ in range(3)]
        for reader, writer in peers:
            await asked(reader, writer)
        assert await peers[0][0].read() == b""
        for reader, writer in peers[1:]:
            assert await asked(reader, writer) == b"2"
        for _, writer in peers:
            writer.close()


async def test_a_request_that_arrives_as_its_connection_is_to_be_closed_is_answered():
    """The timer of an idle connection runs before the event loop reads what has arrived."""
    connections = Connections(620)
    async with connected(connections=connections) as (reader, writer), asyncio.timeout(60):
        await asked(reader, writer)
        writer.write(REQUEST)
        # The kernel has it, and the loop has not run: what is closed now would be lost.
        connections.close_idle()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(1) == b"2"
        assert await reader.read() == b""


async def test_a_drain_announces_the_end_of_connections_before_it_comes():
    connections = Connections(620)
    app = Patient()
    async with connected(app, connections) as (reader, writer), asyncio.timeout(60):
        writer.write(REQUEST)
        await until(lambda: app.begun)
        connections.announce_close()
        app.let.set()
        assert b"connection: close\r\n" in await reader.readuntil(b"\r\n\r\n")
        assert (await reader.read()).endswith(b"done\r\n0\r\n\r\n")


async def test_idle_connections_are_kept_until_a_drain_closes_them():
    connections = Connections(620)
    async with connected(connections=connections) as (reader, writer), asyncio.timeout(60):
        await asked(reader, writer)
        connections.announce_close()
        writer.write(REQUEST)
        assert b"connection: close\r\n" in await reader.readuntil(b"\r\n\r\n")
    async with connected(connections=connections) as (reader, writer), asyncio.timeout(60):
        connections.close_idle()
        # One that has sent nothing yet is not idle: its request is on its way.
        writer.write(REQUEST)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")


async def test_without_a_time_each_answer_ends_its_connection():
    async with connected(connections=Connections(0)) as (reader, writer), asyncio.timeout(60):
        writer.write(REQUEST)
        assert b"connection: close\r\n" in await reader.read()


async def asked(reader, writer):
    """Send a request of two bytes; its answer's body, after which the connection is idle."""
    writer.write(REQUEST)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    return await reader.readexactly(1)
