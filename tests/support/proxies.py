"""Proxies before a daemon's socket."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.servers import serving


class Link(NamedTuple):
    """A connection through a proxy: the client's two streams and the daemon's."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    there: asyncio.StreamReader
    back: asyncio.StreamWriter


Pumps = Callable[[Link], Iterable[Coroutine[None, None, None]]]
"""What runs for a connection."""


@asynccontextmanager
async def unix_proxy(daemon: str, path: Path, pumps: Pumps) -> AsyncIterator[str]:
    """Another address for a daemon at `unix://…`: a socket at `path`.

    What failed in a pump fails the test.
    """

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(daemon.removeprefix("unix://"))
        try:
            await asyncio.gather(*pumps(Link(reader, writer, there, back)))
        finally:
            # What the daemon did not take by now it never will; to wait for that could outlive the
            # test.
            back.transport.abort()

    async with serving(connect, path=path) as address:
        yield address


async def hand_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    hear: Callable[[bytes], None] = lambda _: None,
) -> None:
    """Write what is read until it ends, and let somebody hear it first."""
    try:
        while data := await reader.read(1 << 16):
            hear(data)
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
