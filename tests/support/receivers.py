"""Receivers of callbacks, as hostile as they may be, on 127.0.0.1."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

ACCEPTED = b"HTTP/1.1 204 No Content\r\n\r\n"

Behavior = Callable[["Received", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Received:
    """A request, as its bytes had it."""

    line: str
    headers: dict[str, str]
    body: bytes
    server_name: str = ""


@dataclass
class Receiver:
    """What listens, and what it received."""

    port: int
    requests: list[Received] = field(default_factory=list)
    connections: int = 0


def answering(answer: bytes) -> Behavior:
    async def answer_it(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return answer_it


async def never(_: Received, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def endless(begin: bytes, piece: bytes) -> Behavior:
    async def go_on(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(piece)
            await writer.drain()

    return go_on


@contextlib.asynccontextmanager
async def receiver(
    behavior: Behavior | None = None, *, trust: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """Answer each request of a connection of its own."""
    behave = behavior or answering(ACCEPTED)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        listening.connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = (line.partition(": ") for line in head[1:] if line)
                headers = {name.lower(): value for name, _, value in fields}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                received = Received(head[0], headers, body, getattr(trust, "server_name", ""))
                listening.requests.append(received)
                await behave(received, writer)
        except asyncio.CancelledError:
            # Its end here; asyncio would report a connection's task that was canceled.
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=trust)
    listening = Receiver(server.sockets[0].getsockname()[1])
    try:
        yield listening
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
