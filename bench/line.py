"""A line with a bandwidth and a delay between a client and a server, as a TCP relay.

It stands for netem, which not every kernel has. Both directions have the bandwidth, which all
connections share. What is on its way is bounded, as a sender's window is.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

BITS_A_SECOND = 20e6
ROUND_TRIP_SECONDS = 0.030

_PIECE_BYTES = 8 * 1024
_LATE_SECONDS = 0.05
"""By how much the relay may be late on a busy machine, without a loss of bandwidth."""

_ON_THE_WAY = 32
"""Pieces of one direction of one connection: 256 KiB, three times what the line holds."""


class Line:
    """Two directions, each with the time at which it is free again."""

    def __init__(self) -> None:
        self._free = {True: 0.0, False: 0.0}

    async def carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        """Carry one direction of a connection to its end."""
        clock = asyncio.get_running_loop().time
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_ON_THE_WAY)

        async def deliver() -> None:
            while True:
                arrival, piece = await pieces.get()
                await asyncio.sleep(arrival - clock())
                if not piece:
                    with contextlib.suppress(OSError):
                        writer.write_eof()
                    return
                writer.write(piece)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        try:
            while piece := await reader.read(_PIECE_BYTES):
                seconds = len(piece) * 8 / BITS_A_SECOND
                self._free[up] = max(self._free[up], clock() - _LATE_SECONDS) + seconds
                await pieces.put((self._free[up] + ROUND_TRIP_SECONDS / 2, piece))
                # The next piece is read when this one has left.
                await asyncio.sleep(self._free[up] - clock())
            await pieces.put((clock() + ROUND_TRIP_SECONDS / 2, b""))
            await delivering
        finally:
            delivering.cancel()


@asynccontextmanager
async def line(listen: str, to: str) -> AsyncIterator[None]:
    """Relay connections to `listen` (`host:port`) to an address, `host:port` or a socket's path."""
    shared = Line()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if to.startswith("/"):
                inner = await asyncio.open_unix_connection(to)
            else:
                inner = await asyncio.open_connection(*to.rsplit(":", 1))
            await asyncio.gather(
                shared.carry(reader, inner[1], up=True), shared.carry(inner[0], writer, up=False)
            )
            inner[1].close()
        writer.close()

    host, port = listen.rsplit(":", 1)
    server = await asyncio.start_server(connected, host, int(port))
    try:
        yield
    finally:
        server.close()
