"""Proxies before nats-server and an S3 server, which keep a request, or its answer, from going on.

A test sets a trap for one kind of request. The proxy keeps the first build's request that fits, and
each repetition of it, until the test lets it go. So a program can be killed at exactly that step.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.servers import serving

_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{24}(?![0-9a-f])")
_RECORD = re.compile(rb"\$KV\.builds\.\w+\.([0-9a-f]{6})\.([0-9a-f]{18})$")
_CAUGHT_SECONDS = 60


class Asked(NamedTuple):
    """A request: a message for NATS, or one to S3.

    Attributes:
        what: the subject, or the method and the path.
        data: the message with its headers; the body of an S3 request is left out.
        build: the id of the build that it belongs to; empty if it tells none.
    """

    what: str
    data: bytes
    build: str


@dataclass(eq=False)
class Trap:
    """Keeps requests of one build.

    Attributes:
        fits: whether a request is of the kind.
        after: whether the request goes on and its answer is kept; otherwise the request is.
        build: the build whose request was caught.
    """

    fits: Callable[[Asked], bool]
    after: bool
    build: str = ""
    _caught: asyncio.Event = field(default_factory=asyncio.Event)
    _decided: asyncio.Event = field(default_factory=asyncio.Event)
    _drops: bool = False

    async def caught(self) -> str:
        """Wait until a request was caught; returns the build's id."""
        async with asyncio.timeout(_CAUGHT_SECONDS):
            await self._caught.wait()
        return self.build

    def decide(self, *, drop: bool) -> None:
        """Let what is kept go on, or forget it as if it had not been sent; catch no more."""
        self._drops = drop
        self._decided.set()

    def catches(self, asked: Asked) -> bool:
        """Whether a request is to be kept."""
        mine = not self.build or self.build == asked.build
        if self._decided.is_set() or not mine or not self.fits(asked):
            return False
        self.build = asked.build
        return True

    async def keep(self) -> bool:
        """Wait until the test decides; returns whether to go on."""
        self._caught.set()
        await self._decided.wait()
        return not self._drops


class Traps:
    """The traps of one proxy.

    Attributes:
        address: `host:port`.
        server: what is behind it; one that is away closes connections.
    """

    def __init__(self, server: str) -> None:
        self.address = ""
        self.server = server
        self._traps: list[Trap] = []

    def before(self, fits: Callable[[Asked], bool]) -> Trap:
        """Keep a request."""
        return self._add(Trap(fits, after=False))

    def after(self, fits: Callable[[Asked], bool]) -> Trap:
        """Keep the answer to a request."""
        return self._add(Trap(fits, after=True))

    def find(self, asked: Asked) -> Trap | None:
        """The trap that catches a request."""
        return next((trap for trap in self._traps if trap.catches(asked)), None)

    def clear(self, *, drop: bool = False) -> None:
        """Let everything go on, or forget it; no trap is left."""
        for trap in self._traps:
            trap.decide(drop=drop)
        self._traps.clear()

    def _add(self, trap: Trap) -> Trap:
        self._traps.append(trap)
        return trap


class NatsProxy(Traps):
    """Hands messages on; one that is kept does not stop those behind it."""

    def __init__(self, server: str) -> None:
        super().__init__(server)
        self._handed_out: dict[tuple[str, str], str] = {}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a builder's."""
        host, _, port = self.server.partition(":")
        there, back = await asyncio.open_connection(host, int(port))
        # The answers to these subjects are kept.
        answers: dict[str, Trap] = {}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pump(reader, back, writer, answers, asks=True))
            tasks.create_task(self._pump(there, writer, back, answers, asks=False))

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        answers: dict[str, Trap],
        *,
        asks: bool,
    ) -> None:
        kept: set[asyncio.Task[None]] = set()
        try:
            while True:
                whole = line = await reader.readuntil(b"\r\n")
                words = line.split()
                verb = words[0].upper() if words else b""
                trap = None
                if verb in (b"PUB", b"HPUB", b"MSG", b"HMSG"):
                    data = await reader.readexactly(int(words[-1]) + 2)
                    whole = line + data
                    trap = self._trap(verb, words, data, answers, asks=asks)
                if trap is not None:
                    task = asyncio.create_task(_keep(trap, writer, whole))
                    kept.add(task)
                    task.add_done_callback(kept.discard)
                else:
                    writer.write(whole)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for task in kept:
                task.cancel()
            writer.close()
            other.close()

    def _trap(
        self,
        verb: bytes,
        words: list[bytes],
        data: bytes,
        answers: dict[str, Trap],
        *,
        asks: bool,
    ) -> Trap | None:
        """The trap that keeps a message."""
        sizes = 2 if verb.startswith(b"H") else 1
        named = [word.decode() for word in words[1:-sizes]]
        subject = named.pop(0)
        if not asks:
            # Its subscription's number, and perhaps where to acknowledge it.
            if len(named) > 1:
                self._note_handed_out(named[1], data)
            return answers.get(subject)
        trap = self.find(Asked(subject, data, self._build(subject, data)))
        if trap is not None and trap.after:
            answers[named[0] if named else ""] = trap
            # Nothing answers it: there is nothing to keep.
            return None
        return trap

    def _note_handed_out(self, reply: str, data: bytes) -> None:
        if reply.startswith("$JS.ACK.") and (found := _ID.search(data)):
            self._handed_out[_message(reply)] = found[0].decode()

    def _build(self, subject: str, data: bytes) -> str:
        if subject.startswith("$JS.ACK."):
            return self._handed_out.get(_message(subject), "")
        if found := _RECORD.search(subject.encode()):
            return (found[1] + found[2]).decode()
        named = _ID.search(subject.encode()) or _ID.search(data)
        return named[0].decode() if named else ""


async def _keep(trap: Trap, writer: asyncio.StreamWriter, whole: bytes) -> None:
    if await trap.keep() and not writer.is_closing():
        writer.write(whole)


def _message(reply: str) -> tuple[str, str]:
    """The stream and the number of a message, of the subject that acknowledges it."""
    parts = reply.split(".")
    # $JS.ACK.stream.consumer.delivered.number…, or with a domain and an account before the stream.
    start = 2 if len(parts) < 11 else 4
    return parts[start], parts[start + 3]


class S3Proxy(Traps):
    """Hands requests on, each on a connection of its own."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a builder's."""
        host, _, port = self.server.partition(":")
        while True:
            head, body = await _read(reader)
            method, path = head.split(b" ", 2)[:2]
            found = _ID.search(path)
            what = f"{method.decode()} {path.decode()}"
            trap = self.find(Asked(what, head, found[0].decode() if found else ""))
            if trap is not None and not trap.after and not await trap.keep():
                return
            there, back = await asyncio.open_connection(host, int(port))
            try:
                back.write(head + body)
                answer = await _read(there, bodiless=method == b"HEAD")
            finally:
                back.close()
            if trap is not None and trap.after and not await trap.keep():
                return
            writer.write(b"".join(answer))
            await writer.drain()


async def _read(reader: asyncio.StreamReader, *, bodiless: bool = False) -> tuple[bytes, bytes]:
    """The head and the body of a request or an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    if bodiless or re.match(rb"HTTP/1.1 (204|304) ", head):
        return head, b""
    if re.search(rb"\r\ntransfer-encoding: *chunked", head, re.IGNORECASE):
        body = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            piece = await reader.readexactly(int(line, 16) + 2)
            body += line + piece
            if piece == b"\r\n":
                return head, body
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return head, await reader.readexactly(int(length[1]) if length else 0)


@asynccontextmanager
async def nats_proxy(server: str) -> AsyncIterator[NatsProxy]:
    """A proxy before a nats-server at `host:port`."""
    proxy = NatsProxy(server)
    async with serving(proxy.handle) as proxy.address:
        yield proxy


@asynccontextmanager
async def s3_proxy(server: str) -> AsyncIterator[S3Proxy]:
    """A proxy before an S3 server at `host:port`."""
    proxy = S3Proxy(server)
    async with serving(proxy.handle) as proxy.address:
        yield proxy
