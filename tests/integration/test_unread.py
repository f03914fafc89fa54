"""Answers that no client reads, of builds with a long log: their logs share a budget of memory."""

import asyncio
import socket
import uuid
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from function_builder.builds.log import CUT
from function_builder.server.unread import MAX_UNREAD_BYTES
from tests.support import until
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import headers, make_tar

pytestmark = pytest.mark.integration

ANSWERS = 5
STEPS = 4
"""Each prints 4 MB, in lines of 32 KiB: of both its streams, BuildKit keeps 2 MiB."""
PRINT = """x=x; n=0
while [ $n -lt 15 ]; do x=$x$x; n=$((n+1)); done
while [ $n -lt 78 ]; do echo $x; echo $x >&2; n=$((n+1)); done"""
LOG_BYTES = STEPS * 2 * 63 * 2**15
"""Of each build."""
OTHER_BYTES = 64 << 20
"""What one build and one answer may take beside the logs."""


def request() -> bytes:
    step = f"RUN : {uuid.uuid4()}; {'; '.join(PRINT.splitlines())}\n"
    body = make_tar({"Dockerfile": "FROM busybox\n" + step * STEPS}, {"skipPush": True})
    fields = headers(body, stream=True) | {"Host": "b", "Content-Length": str(len(body))}
    fields["Connection"] = "close"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /build HTTP/1.1\r\n{lines}\r\n".encode() + body


def resident_bytes(builder: RunningBuilder) -> int:
    status = Path(f"/proc/{builder.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def received(client: socket.socket) -> bytes:
    client.settimeout(60)
    with client.makefile("rb") as answer:
        return answer.read()


async def test_they_take_no_more_memory_than_their_budget(tmp_path, buildkitd):
    assert ANSWERS * LOG_BYTES > MAX_UNREAD_BYTES
    async with running_builder(tmp_path / "b", buildkitd) as builder:
        before = resident_bytes(builder)
        host, _, port = builder.url.removeprefix("http://").partition(":")
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.socket()) for _ in range(ANSWERS)]
            for number, client in enumerate(clients, 1):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect((host, int(port)))
                await asyncio.to_thread(client.sendall, request())
                await until(partial(has_ended, builder, number))
            # It says so after the line of the build's end.
            await until(lambda: "unread logs reached their limit" in builder.log.read_text())
            assert resident_bytes(builder) < before + MAX_UNREAD_BYTES + OTHER_BYTES
            cut = await asyncio.to_thread(received, clients[0])
            assert CUT.encode() in cut
            assert b'"success"' in cut.rpartition(CUT.encode())[2]


def has_ended(builder: RunningBuilder, number: int) -> bool:
    return builder.log.read_text().count("build ended") == number
