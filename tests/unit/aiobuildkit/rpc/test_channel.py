"""Two channels with nothing but bytes between them, cut anywhere."""

import asyncio
from collections.abc import Callable
from typing import Self

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given, settings
from hypothesis import strategies as st

from aiobuildkit import ConnectionLost, ProtocolError, RPCError, StatusCode
from aiobuildkit.http2.compression import STEP_BYTES, Coded
from aiobuildkit.http2.connection import HTTP2
from aiobuildkit.rpc import framing
from aiobuildkit.rpc.channel import Channel
from aiobuildkit.rpc.stream import HIGH_WATER, ServedStream


async def carry(source: Channel, sink: Channel, size: Callable[[], int]) -> None:
    while data := await source.data_to_send():
        while data:
            piece = size()
            sink.receive_data(data[:piece])
            data = data[piece:]
            await asyncio.sleep(0)


class Pair:
    """A client's channel, and a server's that echoes each message of each call."""

    def __init__(self, size: Callable[[], int] = lambda: 65_536) -> None:
        self.client = Channel(HTTP2(client=True))
        self.server = Channel(HTTP2(client=False), accept=self.accept)
        self.reason = "the end"
        self.tasks = [
            asyncio.create_task(carry(self.client, self.server, size)),
            asyncio.create_task(carry(self.server, self.client, size)),
        ]

    def accept(self, stream: ServedStream) -> None:
        self.tasks.append(asyncio.create_task(self.serve(stream)))

    async def serve(self, stream: ServedStream) -> None:
        while (message := await stream.receive()) is not None:
            await stream.send(message)
        stream.close(StatusCode.DATA_LOSS if stream.path == "/fail" else StatusCode.OK, self.reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def echo(self, path: str, messages: list[bytes]) -> list[bytes]:
        call = self.client.open(path)

        async def send() -> None:
            for message in messages:
                await call.send(message)
            call.half_close()

        sending = asyncio.create_task(send())
        received = []
        try:
            while (message := await call.receive()) is not None:
                received.append(message)
        finally:
            await sending
        return received


@settings(max_examples=40, deadline=None)
@given(
    calls=st.lists(
        st.lists(st.binary(max_size=60) | st.integers(0, 300_000).map(bytes), max_size=5),
        min_size=1,
        max_size=6,
    ),
    sizes=st.lists(st.integers(1, 100) | st.integers(1, 100_000), min_size=1, max_size=8),
)
def test_calls_side_by_side_echo_whatever_is_sent_however_it_is_cut(calls, sizes):
    turn = iter(range(10**9))

    def size() -> int:
        # Small pieces cost a turn of the loop each, so most of a large transfer comes in one.
        number = next(turn)
        return sizes[number % len(sizes)] if number < 200 else 1 << 20

    async def run() -> None:
        async with Pair(size) as pair:
            echoes = await asyncio.gather(*(pair.echo("/echo", messages) for messages in calls))
            assert echoes == calls

    asyncio.run(run())


async def test_a_message_larger_than_the_window_comes_whole():
    message = bytes(range(256)) * (6 * 4096)
    async with Pair() as pair:
        assert await pair.echo("/echo", [message, b"", message]) == [message, b"", message]


async def test_messages_come_before_the_error_that_follows_them():
    async with Pair() as pair:
        call = pair.client.open("/fail")
        for message in (b"one", b"two"):
            await call.send(message)
        call.half_close()
        assert [await call.receive(), await call.receive()] == [b"one", b"two"]
        for _ in range(2):
            with pytest.raises(RPCError, match="the end") as caught:
                await call.receive()
            assert caught.value.code is StatusCode.DATA_LOSS
        with pytest.raises(RPCError, match="the end"):
            await call.send(b"too late")


async def test_an_error_of_megabytes_is_raised_again_and_again():
    async with Pair() as pair:
        call = pair.client.open("/fail")
        await call.send(b"one")
        pair.reason = "the end" * 200_000
        call.half_close()
        assert await call.receive() == b"one"
        for _ in range(2):
            with pytest.raises(RPCError) as caught:
                await call.receive()
            assert caught.value.message == pair.reason


async def test_the_event_loop_goes_on_while_a_long_error_is_decoded():
    # «!» has ten bits, so grpc-go would not code it; but a peer may.
    coded = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(b"!" * 50_000)
    channel = Channel(HTTP2(client=True))
    call = channel.open("/fail")
    call.headers_received([(b"grpc-status", b"2"), (b"grpc-message", Coded(coded))])
    call.ended()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count())
    with pytest.raises(RPCError, match="!!!"):
        await call.receive()
    other.cancel()
    assert turns >= len(coded) // STEP_BYTES


async def test_a_long_error_that_cannot_be_decoded_is_the_peers_fault():
    channel = Channel(HTTP2(client=True))
    call = channel.open("/fail")
    call.headers_received([(b"grpc-status", b"2"), (b"grpc-message", Coded(b"\xff" * 50_000))])
    call.ended()
    with pytest.raises(ProtocolError, match="invalid headers"):
        await call.receive()


async def test_a_call_that_ended_well_takes_no_more():
    async with Pair() as pair:
        call = pair.client.open("/echo")
        call.half_close()
        assert await call.receive() is None
        with pytest.raises(ConnectionLost, match="has ended"):
            await call.send(b"too late")


async def test_a_call_that_ended_well_is_not_cancelled_any_more():
    client, server = Channel(HTTP2(client=True)), HTTP2(client=False)
    call = client.open("/echo")
    server.receive_data(client.data_to_send_nowait())
    server.respond(1, framing.response_headers())
    server.send(1, framing.prefix(b"done"), b"done")
    server.end(1, framing.trailers(StatusCode.OK))
    # In one turn, before anybody has received it.
    client.receive_data(server.data_to_send())
    call.cancel(ConnectionLost("too late"))
    assert await call.receive() == b"done"
    assert await call.receive() is None


async def test_losing_the_carrier_ends_what_waits():
    channel = Channel(HTTP2(client=True))  # with no carrier, so that nothing is ever sent
    receiving, sending = channel.open("/echo"), channel.open("/echo")
    await sending.send(bytes(HIGH_WATER))
    waits = [asyncio.create_task(receiving.receive()), asyncio.create_task(sending.send(b""))]
    await asyncio.sleep(0)
    assert not any(wait.done() for wait in waits)
    channel.lose(ConnectionLost("gone"))
    for wait in waits:
        with pytest.raises(ConnectionLost, match="gone"):
            await wait
    with pytest.raises(ConnectionLost, match="gone"):
        channel.open("/echo")


async def test_what_is_sent_in_one_turn_is_taken_in_one_piece():
    channel = Channel(HTTP2(client=True))
    await channel.data_to_send()
    taking = asyncio.create_task(channel.data_to_send())
    await asyncio.sleep(0)
    calls = [channel.open("/echo") for _ in range(10)]
    for call in calls:
        for _ in range(100):
            await call.send(b"message")
    data = await taking
    assert len(data) >= 10 * 100 * len(b"message")
    assert channel.data_to_send_nowait() == b""
