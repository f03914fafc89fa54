"""A siege: strangers at each phase of a request, while signed builds go on.

`make soak TIME=5m ARGS=--siege` prints which requests were served, and how late. test_siege.py is
the short form.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from function_builder.contract.timestamp import stamp
from function_builder.engine import BuildKitConfig, BuildKitDaemon
from tests.support.builders import RunningBuilder, running_builder
from tests.support.requests import SECRET, headers, make_tar

STRANGERS = "127.0.0.2"
CLIENTS = "127.0.0.3"
EACH = 12
"""Connections of each kind of stranger at a time: together as many as there are upload places."""

_PATIENCE = 60.0
_HELD_SECONDS = 3.0

HEAD = b"POST /build HTTP/1.1\r\nHost: a\r\nX-Build-Signature: sha256=" + b"0" * 64 + b"\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SIZED = HEAD + b"Content-Length: 1000000\r\n\r\n"

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Stranger = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Served:
    """How requests of one kind were answered.

    Attributes:
        statuses: how often each, an error by its name.
        took: seconds until each answer.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The part that was answered 200."""
        return self.statuses["200"] / max(self.statuses.total(), 1)

    def row(self, name: str) -> str:
        """A line of a report."""
        took = sorted(self.took) or [0.0]
        half, most = took[len(took) // 2], took[-1]
        return f"| {name} | {dict(self.statuses)} | {half:.2f} s | {most:.2f} s |"


@dataclass(slots=True)
class Siege:
    """What a siege gave.

    Attributes:
        served: the requests of those who must be served.
        strangers: how many connections each kind of stranger made.
        memory: megabytes of the builder at its most.
    """

    served: dict[str, Served] = field(default_factory=dict)
    strangers: Counter[str] = field(default_factory=Counter)
    memory: float = 0.0

    def report(self) -> str:
        """Tables for a page."""
        rows = [served.row(name) for name, served in self.served.items()]
        kinds = ", ".join(f"{name} {number}" for name, number in sorted(self.strangers.items()))
        head = ["| request | answers | median | longest |", "| --- | --- | --- | --- |"]
        return "\n".join(
            [
                *head,
                *rows,
                "",
                f"Strangers' connections: {kinds}.",
                f"The builder's memory: {self.memory:.0f} MB at the most.",
            ]
        )


async def besiege(root: Path, buildkit: str, *, seconds: float) -> Siege:
    """Start a builder and besiege it for so long."""
    siege = Siege()
    async with running_builder(root, buildkit, max_inflight="4", max_queue="20") as builder:
        status = Path(f"/proc/{builder.process.pid}/status")
        tasks = [
            asyncio.create_task(_strangers(siege, builder, name, stranger))
            for name, stranger in KINDS.items()
            for _ in range(EACH)
        ]
        end = time.monotonic() + seconds
        try:
            await asyncio.gather(
                _ask(siege, builder, "/healthz", _healthz, end, pause=0.05),
                _ask(siege, builder, "build", _build, end, pause=0.2),
                _ask(siege, builder, "build, proven at the headers", _proven_build, end, pause=0.2),
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        siege.memory = (
            int((await asyncio.to_thread(status.read_text)).partition("VmHWM:")[2].split()[0])
            / 1024
        )
    return siege


async def alone(root: Path, *, seconds: float) -> Siege:
    """Besiege a builder with a BuildKit of its own, in a directory of its own."""
    config, log = BuildKitConfig(), root / "buildkitd.log"
    async with BuildKitDaemon(root / "bk", config=config, log=log) as daemon:
        return await besiege(root / "b", daemon.address, seconds=seconds)


async def _strangers(siege: Siege, builder: RunningBuilder, name: str, stranger: Stranger) -> None:
    """Connect again and again."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with _connected(builder, STRANGERS) as peer:
                siege.strangers[name] += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_HELD_SECONDS):
                        await stranger(*peer)
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def _connected(builder: RunningBuilder, source: str) -> AsyncIterator[Peer]:
    host, port = builder.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _half_a_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await reader.read()


async def _many_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + b"a:b\r\n" * 6000)
    await reader.read()


async def _tiny_chunks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(CHUNKED)
    while True:
        writer.write(b"1\r\nA\r\n" * 10_000)
        await writer.drain()


async def _young_upload(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SIZED + b"A")
    await reader.read()


async def _trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SIZED)
    await _trickle_on(writer)


async def _wrong_signature(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SIZED + bytes(1_000_000))
    await reader.read()


async def _body_after_answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    await _trickle_on(writer)


async def _trickle_on(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"A")
        await asyncio.sleep(0.1)


async def _unread_answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _number in range(5):
        writer.write(b"GET /openapi.yaml HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.2)
    await asyncio.sleep(_HELD_SECONDS)


KINDS: Mapping[str, Stranger] = {
    "half a head": _half_a_head,
    "many headers": _many_headers,
    "tiny chunks": _tiny_chunks,
    "young upload": _young_upload,
    "trickled body": _trickle,
    "wrong signature": _wrong_signature,
    "body after its answer": _body_after_answer,
    "unread answer": _unread_answer,
}


async def _ask(
    siege: Siege,
    builder: RunningBuilder,
    name: str,
    request: Callable[[int], bytes],
    end: float,
    *,
    pause: float,
) -> None:
    """Send requests from another address, one after the other, each on its own connection."""
    served = siege.served[name] = Served()
    for number in itertools.count():
        if time.monotonic() > end:
            return
        begun = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE), _connected(builder, CLIENTS) as (reader, writer):
                writer.write(request(number))
                status = (await reader.readline()).split()[1].decode()
        except (OSError, TimeoutError, IndexError) as error:
            status = type(error).__name__
        served.statuses[status] += 1
        served.took.append(time.monotonic() - begun)
        await asyncio.sleep(pause)


def _healthz(_: int) -> bytes:
    return b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


def _build(number: int, **more: str) -> bytes:
    dockerfile = f"FROM scratch\nLABEL number={number % 10}\n"
    body = make_tar({"Dockerfile": dockerfile}, {"skipPush": True}, mtime=1)
    sent = headers(body)
    lines = [f"{name}: {value}" for name, value in (sent | more).items()]
    head = ["POST /build HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


def _proven_build(number: int) -> bytes:
    body = _build(number)
    signature = body.partition(b"X-Build-Signature: ")[2].partition(b"\r\n")[0].decode()
    return _build(number, **{"X-Build-Timestamp": stamp(SECRET.encode(), signature, time.time())})
