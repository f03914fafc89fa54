"""The session as BuildKit sees it: a gRPC server inside a call."""

import asyncio
import logging
from collections.abc import Mapping

import pytest

from aiobuildkit import (
    ConnectionLost,
    Handler,
    Health,
    RPCError,
    ServerStream,
    StatusCode,
)
from aiobuildkit.rpc.stream import HIGH_WATER
from aiobuildkit.session.session import Session
from tests.support import until
from tests.unit.aiobuildkit.sessions import in_session


class Offer:
    """An attachable of one method."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def handlers(self) -> Mapping[str, Handler]:
        return {"/test.Test/Call": self._handler}


async def test_health_is_answered_while_a_handler_sends_what_nobody_takes(tmp_path):
    async def flood(stream: ServerStream) -> None:
        while True:
            await stream.send(bytes(100_000))

    async with in_session(tmp_path, Offer(flood), generous=False) as wire:
        wire.call("/test.Test/Call")
        # The connection's window is shut by the flood before it opens for the answer.
        call = wire.call("/grpc.health.v1.Health/Check")
        await wire.send(call.stream_id, bytes(5))
        wire.h2.increment_flow_control_window(1000)
        wire.flush()
        assert await call.receive() == b"\x08\x01"


async def test_what_is_not_offered_is_unimplemented(tmp_path):
    async with in_session(tmp_path) as wire:
        call = await wire.ask("/moby.filesync.v1.Auth/GetTokenAuthority", b"")
        assert call.trailers["grpc-status"] == str(StatusCode.UNIMPLEMENTED.value)


async def test_an_rpc_error_is_the_status(tmp_path):
    async def refuse(stream: ServerStream) -> None:
        raise RPCError(StatusCode.FAILED_PRECONDITION, "100 % of it: nö")

    async with in_session(tmp_path, Offer(refuse)) as wire:
        call = await wire.ask("/test.Test/Call", b"")
        assert call.trailers["grpc-status"] == "9"
        assert call.trailers["grpc-message"] == "100 %25 of it: n%C3%B6"


async def test_what_cannot_be_told_in_utf8_is_answered_too(tmp_path):
    async def refuse(stream: ServerStream) -> None:
        raise RPCError(StatusCode.NOT_FOUND, "no \udce9")

    async with in_session(tmp_path, Offer(refuse)) as wire:
        call = await wire.ask("/test.Test/Call", b"")
        assert (call.trailers["grpc-status"], call.trailers["grpc-message"]) == ("5", "no ?")


async def test_a_handler_whose_awaited_future_is_cancelled_answers(tmp_path):
    lookup = asyncio.get_running_loop().create_future()

    async def wait(stream: ServerStream) -> None:
        await lookup

    async with in_session(tmp_path, Offer(wait)) as wire:
        asking = asyncio.create_task(wire.ask("/test.Test/Call", b""))
        # Whoever is asked next is asked after the handler has begun.
        await wire.ask("/grpc.health.v1.Health/Check", b"")
        lookup.cancel()
        call = await asking
        assert call.trailers["grpc-status"] == str(StatusCode.CANCELLED.value)
        # The session goes on.
        health = await wire.ask("/grpc.health.v1.Health/Check", b"")
        assert health.trailers["grpc-status"] == "0"


async def test_a_fault_of_ours_is_logged_and_not_told(tmp_path, caplog):
    async def fail(stream: ServerStream) -> None:
        await stream.send(b"a first message")
        raise RuntimeError("the password is swordfish")

    async with in_session(tmp_path, Offer(fail)) as wire:
        call = await wire.ask("/test.Test/Call", b"")
        assert await call.receive() == b"a first message"
        assert call.trailers["grpc-status"] == "13"
        assert "swordfish" not in str(call.trailers)
        (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert "swordfish" in str(record.exc_info)
        # The session goes on.
        health = await wire.ask("/grpc.health.v1.Health/Check", b"")
        assert health.trailers["grpc-status"] == "0"


async def test_metadata_and_messages_come_as_they_were_sent(tmp_path):
    seen: list[object] = []

    async def note(stream: ServerStream) -> None:
        seen.append(stream.metadata["exclude-patterns"])
        while (message := await stream.receive()) is not None:
            seen.append(message)
            await stream.send(message[::-1])

    async with in_session(tmp_path, Offer(note)) as wire:
        call = wire.call("/test.Test/Call", ("exclude-patterns", "b"), ("exclude-patterns", "!a"))
        for message in (b"one", b"", bytes(range(256)) * 1000):
            await wire.send(call.stream_id, b"\0" + len(message).to_bytes(4, "big") + message)
            assert await call.receive() == message[::-1]
        wire.h2.end_stream(call.stream_id)
        wire.flush()
        assert await call.receive() is None
    assert seen == [["b", "!a"], b"one", b"", bytes(range(256)) * 1000]


async def test_a_sender_waits_while_the_window_is_shut(tmp_path):
    sent: list[int] = []
    waiting = asyncio.Event()

    async def flood(stream: ServerStream) -> None:
        for number in range(200):
            asyncio.get_running_loop().call_later(0.1, waiting.set)
            await stream.send(bytes(100_000))
            sent.append(number)
            waiting.clear()

    async with in_session(tmp_path, Offer(flood), generous=False) as wire:
        call = wire.call("/test.Test/Call")
        await waiting.wait()
        # What the windows took, and what may wait: here, and in the call that carries us.
        assert len(sent) * 100_000 <= 2 * (HIGH_WATER + 100_000) + 65_535
        before = len(sent)
        wire.generous = True
        wire.h2.increment_flow_control_window(65_535)
        wire.h2.increment_flow_control_window(65_535, call.stream_id)
        wire.flush()
        for _ in range(200):
            assert await call.receive() == bytes(100_000)
        assert len(sent) > before


async def test_a_reset_call_is_lost_to_its_handler(tmp_path):
    began, outcome = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def wait(stream: ServerStream) -> None:
        began.set()
        try:
            await stream.receive()
        except ConnectionLost as error:
            outcome.set_result(error)
            raise

    async with in_session(tmp_path, Offer(wait)) as wire:
        call = wire.call("/test.Test/Call")
        await began.wait()
        call.reset()
        assert "reset the call" in str(await outcome)


async def test_a_handler_ends_with_its_session(tmp_path):
    ended = asyncio.get_running_loop().create_future()
    began = asyncio.Event()

    async def wait(stream: ServerStream) -> None:
        began.set()
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            ended.set_result(True)
            raise

    async with in_session(tmp_path, Offer(wait)) as wire:
        wire.call("/test.Test/Call")
        await began.wait()
    assert await ended


async def test_two_attachables_may_not_offer_the_same():
    with pytest.raises(ValueError, match="Health/Check"):
        Session([Health(), Health()], shared_key="")


async def test_several_tasks_may_send_on_one_call(tmp_path):
    async def send(stream: ServerStream, letter: bytes) -> None:
        for _ in range(20):
            await stream.send(letter * 100_000)

    async def both(stream: ServerStream) -> None:
        await asyncio.gather(send(stream, b"a"), send(stream, b"b"))

    async with in_session(tmp_path, Offer(both)) as wire:
        call = await wire.ask("/test.Test/Call", b"")
        received = [await call.receive() for _ in range(40)]
    assert sorted(each[:1] for each in received if each) == [b"a"] * 20 + [b"b"] * 20


async def test_a_call_cut_in_the_middle_of_a_message_is_no_clean_end(tmp_path):
    async def read(stream: ServerStream) -> None:
        while await stream.receive() is not None:
            pass

    async with in_session(tmp_path, Offer(read)) as wire:
        call = wire.call("/test.Test/Call")
        await wire.send(call.stream_id, b"\0\0\0\0\x09only a part"[:10])
        wire.h2.end_stream(call.stream_id)
        wire.flush()
        await call.ended.wait()
        assert call.trailers["grpc-status"] == str(StatusCode.ABORTED.value)
        assert "in the middle of a message" in call.trailers["grpc-message"]


async def test_empty_messages_that_nobody_reads_are_bounded_too(tmp_path):
    async def never(stream: ServerStream) -> None:
        await asyncio.sleep(100)

    async with in_session(tmp_path, Offer(never)) as wire:
        call = wire.call("/test.Test/Call")
        sending = asyncio.create_task(wire.send(call.stream_id, bytes(5_000_000)))
        await until(lambda: wire.h2.local_flow_control_window(call.stream_id) == 0)
        health = await wire.ask("/grpc.health.v1.Health/Check", b"")
        assert health.trailers["grpc-status"] == "0"
        assert wire.h2.local_flow_control_window(call.stream_id) == 0
        sending.cancel()
