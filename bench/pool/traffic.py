"""What a build asks of the registry, counted on the way there."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from bench.command import Row
from bench.contexts import Files
from bench.pool.cases import function
from bench.pool.stage import REGISTRY, Stage, succeeded

_REQUEST = re.compile(rb"(?:GET|HEAD|POST|PUT|PATCH) /v2/\S* HTTP/1\.1\r\n")
_LONGEST_LINE = 2048


class Meter:
    """A way to the registry.

    Attributes:
        requests: that went there.
        sent: bytes that went there.
        received: bytes that came back.
    """

    def __init__(self) -> None:
        self.requests = self.sent = self.received = 0

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[str]:
        """Take connections for the registry; gives the address."""
        async with await asyncio.start_server(self._connected, "127.0.0.1", port):
            yield f"127.0.0.1:{port}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = REGISTRY.partition(":")
        back, forth = await asyncio.open_connection(host, int(port))
        with suppress(ConnectionError):
            await asyncio.gather(self._there(reader, forth), self._back(back, writer))

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The last bytes wait for the rest of what may be a request's first line.
        kept = b""
        while data := await reader.read(1 << 16):
            self.sent += len(data)
            kept += data
            found = list(_REQUEST.finditer(kept))
            self.requests += len(found)
            kept = kept[found[-1].end() if found else 0 :][-_LONGEST_LINE:]
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.received += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()


async def traffic(stage: Stage) -> list[Row]:
    """Requests and bytes between BuildKit and the registry, for one build each."""
    edited = function("edited")
    same: Files = {name: edited[name] for name in edited if name != "handler.sh"} | {
        "Dockerfile": edited["Dockerfile"].replace(b"handler.sh", b"Dockerfile")
    }
    meter = Meter()
    rows: list[Row] = []
    async with (
        meter.listening(stage.port()) as registry,
        stage.machines(1, registry=registry) as (machine,),
    ):
        await machine.start()
        async with stage.builders([machine.address]) as (front,):
            for what, files in (
                ("first build on a new BuildKit", edited),
                ("edited function", edited),
                ("first build of another function", same),
                ("sent again, unchanged", same),
            ):
                before = meter.requests, meter.sent, meter.received
                name = f"traffic/{'edited' if files is edited else 'same'}"
                succeeded([await stage.build(front, name, files, registry=registry)])
                after = meter.requests, meter.sent, meter.received
                requests, sent, received = (b - a for a, b in zip(before, after, strict=True))
                rows.append(
                    {
                        "build": what,
                        "requests": requests,
                        "kB sent": f"{sent / 1000:.1f}",
                        "kB received": f"{received / 1000:.1f}",
                    }
                )
    return rows
