"""A proxy before BuildKit that hands frames on one by one, and can stop after any of them."""

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.proxies import Link, unix_proxy
from tests.support.wiretap import SESSION, Tap

_PREFACE = 24
_RST_STREAM, _CANCEL = 3, 8
_OF_BUILDS = Counter(["Session", "Solve"])


@dataclass
class Cut:
    """How a build's connection ends.

    Attributes:
        after: how many frames, of both sides together, it lives for.
        torn: whether half of the frame after these is handed on as well.
        over: whether it was cut, or its build ended before.
    """

    after: int
    torn: bool
    over: bool = False


@dataclass
class Connection:
    """One connection of a builder's.

    Attributes:
        cut: how it ends, unless it turns out to be no build's: a builder asks for BuildKit's health
            too, by the clock and after each build that lost its connection.
        frames: how many there were.
    """

    builder: asyncio.StreamWriter
    buildkit: asyncio.StreamWriter
    cut: Cut | None
    tap: Tap = field(default_factory=Tap)
    frames: int = 0

    async def pump(self, reader: asyncio.StreamReader, *, to_buildkit: bool) -> None:
        """Hand on what one side says."""
        writer = self.buildkit if to_buildkit else self.builder
        try:
            if to_buildkit:
                preface = await reader.readexactly(_PREFACE)
                self.tap.feed(preface, to_buildkit=True)
                writer.write(preface)
            while True:
                head = await reader.readexactly(9)
                frame = head + await reader.readexactly(int.from_bytes(head[:3], "big"))
                if self.cut and not self.cut.over and self.frames == self.cut.after:
                    self.cut.over = True
                    if self.cut.torn:
                        writer.write(frame[: len(frame) // 2])
                    break
                self.frames += 1
                self.tap.feed(frame, to_buildkit=to_buildkit)
                if self.tap.calls and not self.tap.calls & _OF_BUILDS:
                    self.cut = None
                writer.write(frame)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            if self.cut and self.tap.is_build:
                self.cut.over = True
            self.builder.close()
            self.buildkit.close()

    def reset_session(self, *, to_buildkit: bool) -> None:
        """End the session's stream alone, for the builder, or for both sides."""
        stream = self.tap.stream(SESSION)
        frame = struct.pack(">L", 4)[1:] + struct.pack(">BBLL", _RST_STREAM, 0, stream, _CANCEL)
        self.builder.write(frame)
        if to_buildkit:
            self.buildkit.write(frame)


class Cutter:
    """The proxy.

    Attributes:
        address: of BuildKit, through it.
        connections: all that there were.
    """

    def __init__(self) -> None:
        self.address = ""
        self.connections: list[Connection] = []
        self._cut: Cut | None = None

    def cut_next(self, after: int, *, torn: bool) -> None:
        """Let the connection of the next build live for so many frames."""
        self._cut = Cut(after, torn)

    @property
    def build(self) -> Connection:
        """The connection of the latest build."""
        return next(each for each in reversed(self.connections) if each.tap.is_build)

    def pumps(self, link: Link) -> Iterable[Coroutine[None, None, None]]:
        """What runs for a new connection of the builder's."""
        cut = self._cut
        connection = Connection(link.writer, link.back, None if cut is None or cut.over else cut)
        self.connections.append(connection)
        yield connection.pump(link.reader, to_buildkit=True)
        yield connection.pump(link.there, to_buildkit=False)


@asynccontextmanager
async def cutter(buildkit: str, path: Path) -> AsyncIterator[Cutter]:
    """A proxy at `path`."""
    one = Cutter()
    async with unix_proxy(buildkit, path, one.pumps) as one.address:
        yield one
