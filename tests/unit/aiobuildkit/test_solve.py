"""Solves against a BuildKit that does what a real one will not do on demand."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from google.protobuf.any_pb2 import Any
from h2.errors import ErrorCodes

from aiobuildkit import (
    CacheEntry,
    Client,
    ConnectionFailed,
    ConnectionLost,
    Exporter,
    ProtocolError,
    RPCError,
    Solve,
    SolveError,
    StatusCode,
    Timeouts,
)
from aiobuildkit.http2.connection import HTTP2
from aiobuildkit.protos import control_pb2 as pb
from tests.unit.aiobuildkit.fake_buildkit import Call, FakeBuildKit, inner_connection

REPLY = pb.SolveResponse(
    exporter_response=[pb.ExporterResponse(key=b"containerimage.digest", value=b"sha256:1")]
).SerializeToString()


PATIENT = Timeouts(status=60, first_status=60)
"""Status streams end by themselves here, however slow the machine is."""


def log(text: bytes) -> bytes:
    return pb.StatusResponse(
        logs=[pb.VertexLog(vertex="v", stream=1, msg=text)]
    ).SerializeToString()


async def forever(call: Call) -> None:
    call.respond()
    await call.ended.wait()


async def answer(call: Call) -> None:
    await call.receive()
    call.respond()
    await call.send(REPLY)
    call.finish()


async def one_log(call: Call) -> None:
    call.respond()
    await call.send(log(b"hello\n"))
    call.finish()


async def session(call: Call) -> None:
    _, carrier = inner_connection(call)
    await carrier


def fake(tmp_path, **scripts) -> FakeBuildKit:
    return FakeBuildKit(
        tmp_path, **{"Session": session, "Solve": answer, "Status": one_log} | scripts
    )


@asynccontextmanager
async def solving(tmp_path, *, options=None, timeouts=PATIENT, **scripts) -> AsyncIterator[Solve]:
    async with (
        fake(tmp_path, **scripts) as buildkit,
        Client(buildkit.address, timeouts=timeouts) as client,
        client.solve(**options or {}) as running,
    ):
        yield running


async def logs_of(running) -> list[bytes]:
    return [line.data async for event in running for line in event.logs]


async def test_a_solve_gives_its_events_and_its_result(tmp_path):
    async with solving(tmp_path) as running:
        assert await logs_of(running) == [b"hello\n"]
        assert (await running.result()).digest == "sha256:1"


async def test_metadata_goes_with_the_solve(tmp_path):
    headers: list[tuple[str, str]] = []

    async def note(call: Call) -> None:
        headers.extend(call.headers)
        await answer(call)

    given = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    async with solving(tmp_path, Solve=note, options={"metadata": given}) as running:
        await running.result()
    assert given.items() <= set(headers)


async def test_the_request_says_what_was_asked_for(tmp_path):
    seen: dict[str, bytes | None] = {}
    headers: list[tuple[str, str]] = []

    async def note_session(call: Call) -> None:
        headers.extend(call.headers)
        await session(call)

    async def note_solve(call: Call) -> None:
        seen["solve"] = await call.receive()
        call.respond()
        await call.send(REPLY)
        call.finish()

    async def note_status(call: Call) -> None:
        seen["status"] = await call.receive()
        await one_log(call)

    scripts = {"Session": note_session, "Solve": note_solve, "Status": note_status}
    options = {
        "frontend_attrs": {"build-arg:A": "1"},
        "exporters": [Exporter("image", {"name": "a/b"})],
        "cache_imports": [CacheEntry("registry", {"ref": "r"})],
        "cache_exports": [CacheEntry("inline")],
        "shared_key": "key",
        "internal": True,
        "proxy_network": True,
        "ref": "the-ref",
    }
    async with solving(tmp_path, options=options, **scripts) as running:
        assert running.ref == "the-ref"
        await running.result()
        await logs_of(running)
    fields = dict(headers)
    uuid = fields["x-docker-expose-session-uuid"]
    assert fields["x-docker-expose-session-sharedkey"] == "key"
    assert fields["x-docker-expose-session-grpc-method"] == "/grpc.health.v1.Health/Check"
    entry = pb.CacheOptionsEntry(type="registry", attrs={"ref": "r"})
    assert pb.SolveRequest.FromString(seen["solve"] or b"") == pb.SolveRequest(
        ref="the-ref",
        session=uuid,
        frontend="dockerfile.v0",
        frontend_attrs={
            "build-arg:A": "1",
            "cache-imports": '[{"Type": "registry", "Attrs": {"ref": "r"}}]',
        },
        exporters=[pb.Exporter(type="image", attrs={"name": "a/b"})],
        cache=pb.CacheOptions(imports=[entry], exports=[pb.CacheOptionsEntry(type="inline")]),
        internal=True,
        proxy_network=True,
    )
    assert pb.StatusRequest.FromString(seen["status"] or b"").ref == "the-ref"


async def test_a_failure_has_message_source_vertex_and_exit_code(tmp_path):
    prefix = "github.com/moby/buildkit/"
    source = {
        "info": {"filename": "Dockerfile", "data": base64.b64encode(b"FROM a\nRUN b\n").decode()},
        "ranges": [{"start": {"line": 2}, "end": {"line": 2, "character": 5}}],
    }
    details = [
        ("stack.Stack+json", {"frames": []}),
        ("errdefs.Source+json", source),
        ("errdefs.Vertex+json", {"digest": "sha256:2"}),
        ("gatewayapi.ExitMessage+json", {"Code": 7}),
    ]
    status = pb.RPCStatus(
        details=[Any(type_url=prefix + n, value=json.dumps(d).encode()) for n, d in details],
    )
    encoded = base64.b64encode(status.SerializeToString()).decode().rstrip("=")

    async def fail(call: Call) -> None:
        call.respond()
        call.finish(2, "exit code: 7 100%25", ("grpc-status-details-bin", encoded))

    async with solving(tmp_path, Solve=fail) as running:
        assert await logs_of(running) == [b"hello\n"]
        with pytest.raises(SolveError, match=r"^exit code: 7 100%$") as caught:
            await running.result()
    error = caught.value
    assert error.source is not None
    assert (error.source.filename, error.source.text) == ("Dockerfile", "FROM a\nRUN b\n")
    (where,) = error.source.ranges
    assert (where.start_line, where.end_line, where.end_character) == (2, 2, 5)
    assert (error.exit_code, error.vertex) == (7, "sha256:2")


async def test_no_line_is_lost_that_comes_after_the_reply(tmp_path):
    replied = asyncio.Event()

    async def reply(call: Call) -> None:
        await answer(call)
        replied.set()

    async def late(call: Call) -> None:
        call.respond()
        await replied.wait()
        for number in range(5):
            await asyncio.sleep(0.02)
            await call.send(log(b"%d" % number))
        call.finish()

    scripts = {"Solve": reply, "Status": late}
    async with solving(tmp_path, **scripts) as running:
        await running.result()
        assert await logs_of(running) == [b"0", b"1", b"2", b"3", b"4"]


async def test_the_events_do_not_end_before_the_solve(tmp_path):
    told, reply = asyncio.Event(), asyncio.Event()

    async def status(call: Call) -> None:
        await one_log(call)
        await call.wire.round_trip()
        told.set()

    async def late(call: Call) -> None:
        await reply.wait()
        await answer(call)

    async with solving(tmp_path, Solve=late, Status=status) as running:
        following = asyncio.create_task(logs_of(running))
        await told.wait()
        assert not following.done()
        reply.set()
        assert await following == [b"hello\n"]


@pytest.mark.parametrize("words", [[], [b"hello\n"]])
async def test_a_status_stream_that_never_ends_is_left_in_the_end(tmp_path, words):
    timeouts = Timeouts(status=0.1, first_status=0.1)
    told = asyncio.Event()

    async def endless(call: Call) -> None:
        call.respond()
        for word in words:
            await call.send(log(word))
        await call.wire.round_trip()
        told.set()
        await call.ended.wait()

    async def late(call: Call) -> None:
        await told.wait()
        await answer(call)

    async with solving(tmp_path, timeouts=timeouts, Solve=late, Status=endless) as running:
        assert await logs_of(running) == words


async def test_unread_events_do_not_hold_the_result_back_and_are_not_lost(tmp_path):
    timeouts = Timeouts(first_status=0.05, status=60)
    line = bytes(100_000)
    told = asyncio.Event()

    async def verbose(call: Call) -> None:
        call.respond()
        await call.send(log(line))
        await call.wire.round_trip()
        told.set()
        for _ in range(99):  # 10 MB: more than the window
            await call.send(log(line))
        call.finish()

    async def late(call: Call) -> None:
        await told.wait()
        await answer(call)

    async with solving(tmp_path, timeouts=timeouts, Solve=late, Status=verbose) as running:
        await running.result()
        await asyncio.sleep(0.2)  # longer than the patience with a silent status stream
        assert await logs_of(running) == [line] * 100


async def test_cancel_resets_the_call_and_events_go_on_until_buildkit_ends_them(tmp_path):
    stopped = asyncio.Event()
    codes: list[int | None] = []

    async def run(call: Call) -> None:
        call.respond()
        await call.was_reset.wait()
        codes.append(call.reset_code)
        stopped.set()

    async def status(call: Call) -> None:
        call.respond()
        await call.send(log(b"running"))
        await stopped.wait()
        await call.send(log(b"stopped"))
        call.finish()

    scripts = {"Solve": run, "Status": status}
    async with solving(tmp_path, **scripts) as running:
        assert (await anext(running)).logs[0].data == b"running"
        running.cancel()
        with pytest.raises(SolveError, match="cancelled") as caught:
            await running.result()
        assert caught.value.code is StatusCode.CANCELLED
        assert await logs_of(running) == [b"stopped"]
    assert codes == [ErrorCodes.CANCEL]


async def test_leaving_early_cancels_and_closes(tmp_path):
    scripts = {"Solve": forever, "Status": forever}
    async with fake(tmp_path, **scripts) as buildkit, Client(buildkit.address) as client:
        async with client.solve() as running:
            waiting = asyncio.create_task(running.result())
            await asyncio.sleep(0)
        await buildkit.gone.wait()
        with pytest.raises(SolveError, match="cancelled"):
            await waiting
    (wire,) = buildkit.wires
    codes = {call.path.rpartition("/")[2]: call.reset_code for call in wire.calls.values()}
    assert codes["Solve"] == ErrorCodes.CANCEL


async def test_a_solve_that_is_left_at_once_is_cancelled_for_whoever_asks_later(tmp_path):
    scripts = {"Solve": forever, "Status": forever}
    async with solving(tmp_path, **scripts) as running:
        pass
    assert await logs_of(running) == []
    with pytest.raises(SolveError, match="cancelled"):
        await running.result()


async def test_a_cancelled_task_leaves_nothing_behind(tmp_path):
    started = asyncio.Event()

    async def status(call: Call) -> None:
        started.set()
        await forever(call)

    async def build(client: Client) -> None:
        async with client.solve() as running:
            await logs_of(running)

    scripts = {"Solve": forever, "Status": status}
    async with fake(tmp_path, **scripts) as buildkit, Client(buildkit.address) as client:
        before = asyncio.all_tasks()
        task = asyncio.create_task(build(client))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await buildkit.gone.wait()
        left = [repr(task.get_coro()) for task in asyncio.all_tasks() - before]
        assert not [name for name in left if re.search("Solve|Session|Connection", name)]


async def drop(call: Call) -> None:
    call.respond()
    call.finish()


async def reset(call: Call) -> None:
    call.reset()


async def garble_session(call: Call) -> None:
    call.respond()
    await call.send(pb.BytesMessage(data=b"GET / HTTP/1.1\r\n\r\n" * 3).SerializeToString())
    await call.ended.wait()


@pytest.mark.parametrize("end_session", [drop, reset, garble_session])
async def test_losing_only_the_session_cancels_the_solve_and_says_so(tmp_path, end_session):
    cancelled = asyncio.Event()

    async def run(call: Call) -> None:
        call.respond()
        await call.was_reset.wait()
        cancelled.set()

    async def status(call: Call) -> None:
        call.respond()
        await cancelled.wait()
        call.finish(1, "cancelled")

    scripts = {"Session": end_session, "Solve": run, "Status": status}
    async with solving(tmp_path, **scripts) as running:
        assert await logs_of(running) == []
        with pytest.raises(ConnectionLost, match="dropped the session"):
            await running.result()


async def vanish(call: Call) -> None:
    call.vanish()


async def goaway(call: Call) -> None:
    call.wire.goaway(ErrorCodes.ENHANCE_YOUR_CALM, 0)


async def garbage(call: Call) -> None:
    call.wire.write(b"\xff" * 100)


@pytest.mark.parametrize(
    ("end", "error", "text"),
    [
        (vanish, ConnectionLost, "was lost"),
        (goaway, ConnectionLost, "closing the connection.*11.*as the test says"),
        (garbage, ProtocolError, "broke HTTP/2"),
        (reset, SolveError, "reset by the peer"),
        (drop, ProtocolError, "did not answer"),
    ],
)
@pytest.mark.parametrize("when", ["at once", "after a log line"])
async def test_whatever_ends_a_solve_it_has_the_right_error(tmp_path, end, error, text, when):
    logged = asyncio.Event()

    async def status(call: Call) -> None:
        call.respond()
        await call.send(log(b"hello\n"))
        await call.wire.round_trip()
        logged.set()
        await call.ended.wait()

    async def fail(call: Call) -> None:
        if when != "at once":
            await logged.wait()
        await end(call)

    scripts = {"Solve": fail, "Status": status}
    async with solving(tmp_path, **scripts) as running:
        if when != "at once":
            assert (await anext(running)).logs[0].data == b"hello\n"
        with pytest.raises(error, match=text):
            await running.result()


async def test_a_graceful_goaway_lets_the_solve_finish(tmp_path):
    async def stopping(call: Call) -> None:
        call.wire.goaway(ErrorCodes.NO_ERROR, 2**31 - 1)
        await call.wire.round_trip()
        await answer(call)

    async with solving(tmp_path, Solve=stopping) as running:
        assert (await running.result()).digest == "sha256:1"


async def test_even_a_fault_of_our_own_ends_the_solve(tmp_path, monkeypatch):
    def break_down(_):
        raise RuntimeError("a fault")

    scripts = {"Solve": forever, "Status": one_log}
    async with solving(tmp_path, **scripts) as running:
        monkeypatch.setattr(HTTP2, "data_to_send", break_down)
        assert await logs_of(running) == []
        with pytest.raises(ConnectionLost, match="a fault"):
            await running.result()
        monkeypatch.undo()


async def test_a_daemon_that_falls_silent_is_lost(tmp_path):
    scripts = {"Solve": forever, "Status": forever}
    async with solving(tmp_path, timeouts=Timeouts(silence=0.15), **scripts) as running:
        assert await logs_of(running) == []
        with pytest.raises(ConnectionLost, match="silent"):
            await running.result()


async def test_a_status_stream_that_fails_in_mid_solve_is_an_error_of_the_iteration(tmp_path):
    async def fail(call: Call) -> None:
        call.refuse(13, "no status today")

    scripts = {"Solve": forever, "Status": fail}
    async with solving(tmp_path, timeouts=Timeouts(first_status=0.05), **scripts) as running:
        with pytest.raises(RPCError, match="no status today"):
            await anext(running)


async def test_no_daemon_is_connection_failed(tmp_path):
    async with Client(f"unix://{tmp_path}/none.sock") as client:
        with pytest.raises(ConnectionFailed, match=r"none\.sock") as caught:
            async with client.solve():
                pass
    assert caught.value.address == f"unix://{tmp_path}/none.sock"


async def test_closing_the_client_ends_its_solves(tmp_path):
    scripts = {"Solve": forever, "Status": forever}
    async with fake(tmp_path, **scripts) as buildkit:
        client = Client(buildkit.address)
        async with client, client.solve() as running:
            await client.__aexit__(None, None, None)
            with pytest.raises(ConnectionLost, match="client was closed"):
                await running.result()
            assert await logs_of(running) == []
