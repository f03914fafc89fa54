"""Servers of a few lines, within a test."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What is done with a connection, which is over when this returns."""


@asynccontextmanager
async def serving(
    handler: Handler, *, path: Path | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve at the unix socket `path`, or at a free port of the loopback interface.

    Gives `unix://…` or `host:port`. No connection outlives the block, however far it got: one that
    did would tell of itself in another test. What failed in a handler fails this one, but for
    peers that went away.
    """
    tasks: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []
    over = False

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await handler(reader, writer)

    # Not a coroutine: that of a connection which comes late might never begin, nor end it.
    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if over:
            writer.transport.abort()
            return
        writers.append(writer)
        tasks.append(asyncio.create_task(handle(reader, writer)))
        tasks[-1].add_done_callback(lambda _: _close(writer))

    if path is not None:
        server = await asyncio.start_unix_server(connected, path, ssl=tls)
        address = f"unix://{path}"
    else:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield address
    finally:
        over = True
        server.close()
        for task in tasks:
            task.cancel()
        for writer in writers:
            writer.transport.abort()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


def _close(writer: asyncio.StreamWriter) -> None:
    # Debian's Python 3.11 cannot abort TLS that was closed twice.
    if not writer.is_closing():
        writer.close()


@contextmanager
def serving_app(app: ASGIApp) -> Iterator[str]:
    """Serve an application from a thread until the block ends; gives its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
