"""The session as BuildKit sees it: a gRPC server inside a call."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from aiobuildkit import (
    Attachable,
    Auth,
    Client,
    ConnectionLost,
    Credentials,
    Handler,
    Health,
    RPCError,
    Secrets,
    ServerStream,
    StatusCode,
)
from aiobuildkit.protos import session_pb2 as pb
from aiobuildkit.session import Session
from aiobuildkit.stream import HIGH_WATER
from tests.unit.aiobuildkit.fake_buildkit import Call, FakeBuildKit, Wire, inner_connection

pytestmark = pytest.mark.timeout(20)


class Offer:
    """An attachable of one method."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def handlers(self) -> Mapping[str, Handler]:
        return {"/test.Test/Call": self._handler}


@asynccontextmanager
async def in_session(tmp_path, *attachables: Attachable, generous=True) -> AsyncIterator[Wire]:
    """The connection to a session of a solve that never ends."""
    wires: asyncio.Queue[Wire] = asyncio.Queue()

    async def session(call: Call) -> None:
        wire, carrier = inner_connection(call)
        wire.generous = generous
        wires.put_nowait(wire)
        await carrier

    async def forever(call: Call) -> None:
        await call.was_reset.wait()

    scripts = {"Session": session, "Solve": forever, "Status": forever}
    async with (
        FakeBuildKit(tmp_path, **scripts) as buildkit,
        Client(buildkit.address) as client,
        client.solve(attachables=attachables),
    ):
        yield await wires.get()


async def test_health_is_answered_at_once(tmp_path):
    async with in_session(tmp_path) as wire:
        call = await wire.ask("/grpc.health.v1.Health/Check", b"")
        reply = pb.HealthCheckResponse.FromString(await call.receive() or b"")
        assert reply.status == pb.HealthCheckResponse.SERVING
        assert call.trailers["grpc-status"] == "0"


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
        async with asyncio.timeout(5):
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
        assert "gave the call up" in str(await outcome)


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


async def asked(tmp_path, attachable: Attachable, method: str, request: bytes) -> Call:
    async with in_session(tmp_path, attachable) as wire:
        return await wire.ask(method, request)


async def look_up_later(host: str) -> Credentials | None:
    await asyncio.sleep(0)
    return Credentials("user", f"secret of {host}") if host == "known:5000" else None


def look_up_now(host: str) -> Credentials | None:
    return Credentials("user", f"secret of {host}") if host == "known:5000" else None


@pytest.mark.parametrize("lookup", [look_up_now, look_up_later])
@pytest.mark.parametrize(
    ("host", "username", "secret"),
    [("known:5000", "user", "secret of known:5000"), ("unknown", "", "")],
)
async def test_credentials_are_looked_up_by_host(tmp_path, lookup, host, username, secret):
    request = pb.CredentialsRequest(host=host).SerializeToString()
    method = "/moby.filesync.v1.Auth/Credentials"
    call = await asked(tmp_path, Auth(lookup), method, request)
    reply = pb.CredentialsResponse.FromString(await call.receive() or b"")
    assert (reply.username, reply.secret) == (username, secret)


def test_credentials_do_not_show_their_secret():
    assert "swordfish" not in repr(Credentials("user", "swordfish"))


@pytest.mark.parametrize(("name", "value"), [("a", b"\0\xff"), ("empty", b"")])
async def test_secrets_are_given_by_id(tmp_path, name, value):
    request = pb.GetSecretRequest(id=name).SerializeToString()
    secrets = Secrets({"a": b"\0\xff", "empty": b""})
    call = await asked(tmp_path, secrets, "/moby.buildkit.secrets.v1.Secrets/GetSecret", request)
    assert pb.GetSecretResponse.FromString(await call.receive() or b"").data == value


async def test_an_unknown_secret_is_not_found(tmp_path):
    request = pb.GetSecretRequest(id="b").SerializeToString()
    method = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
    call = await asked(tmp_path, Secrets({"a": b""}), method, request)
    assert call.trailers["grpc-status"] == str(StatusCode.NOT_FOUND.value)


async def test_a_request_that_cannot_be_read_is_an_invalid_argument(tmp_path):
    method = "/moby.buildkit.secrets.v1.Secrets/GetSecret"
    call = await asked(tmp_path, Secrets({}), method, b"\xff\xff")
    assert call.trailers["grpc-status"] == str(StatusCode.INVALID_ARGUMENT.value)
