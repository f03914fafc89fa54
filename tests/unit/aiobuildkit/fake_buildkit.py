"""A BuildKit by plain h2, which does as each test says; so nothing of ours is its own peer."""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from aiobuildkit.protos.control_pb2 import BytesMessage
from tests.support.servers import serving

CONTROL = "/moby.buildkit.v1.Control/"
Script = Callable[["Call"], Awaitable[None]]


def frame(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def text(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(key.decode(), value.decode()) for key, value in headers]


class Call:
    """One stream of a connection, on whichever side: its messages, headers and end."""

    def __init__(self, wire: "Wire", stream_id: int, headers: list[tuple[str, str]]) -> None:
        self.wire = wire
        self.stream_id = stream_id
        self.headers = headers
        self.trailers: dict[str, str] = {}
        self.reset_code: int | None = None
        self.ended = asyncio.Event()
        self.was_reset = asyncio.Event()
        self._data = bytearray()
        self._arrived = asyncio.Event()

    @property
    def path(self) -> str:
        return dict(self.headers)[":path"]

    async def receive(self) -> bytes | None:
        while True:
            if len(self._data) >= 5:
                end = 5 + int.from_bytes(self._data[1:5], "big")
                if len(self._data) >= end:
                    message = bytes(self._data[5:end])
                    del self._data[:end]
                    return message
            if self.ended.is_set():
                return None
            self._arrived.clear()
            await self._arrived.wait()

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._arrived.set()

    def end(self) -> None:
        self.ended.set()
        self._arrived.set()

    def respond(self) -> None:
        self.wire.h2.send_headers(self.stream_id, [(":status", "200")])
        self.wire.flush()

    async def send(self, message: bytes) -> None:
        await self.wire.send(self.stream_id, frame(message))

    def finish(self, status: int = 0, message: str = "", *extra: tuple[str, str]) -> None:
        trailers = [("grpc-status", str(status)), ("grpc-message", message), *extra]
        self.wire.h2.send_headers(self.stream_id, trailers, end_stream=True)
        self.wire.flush()

    def refuse(self, status: int, message: str) -> None:
        """A trailers-only reply."""
        headers = [(":status", "200"), ("grpc-status", str(status)), ("grpc-message", message)]
        self.wire.h2.send_headers(self.stream_id, headers, end_stream=True)
        self.wire.flush()

    def vanish(self) -> None:
        """Close the connection, as a killed daemon's kernel does."""
        self.wire.close()

    def reset(self, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        self.wire.h2.reset_stream(self.stream_id, code)
        self.wire.flush()


class Wire:
    """One h2 connection, fed and flushed by whoever owns its bytes.

    A wire that is not generous never replenishes its windows.
    """

    generous = True

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        client: bool,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.close = close
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=client, header_encoding=False)
        )
        self.write = write
        self.calls: dict[int, Call] = {}
        self.opened: asyncio.Queue[Call] = asyncio.Queue()
        self._window = asyncio.Event()
        self._pong = asyncio.Event()
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.write(data)

    def receive_data(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self._handle(event)
        self.flush()

    def _handle(self, event: h2.events.Event) -> None:
        stream_id = getattr(event, "stream_id", None) or 0
        call = self.calls.get(stream_id)
        match event:
            case h2.events.RequestReceived():
                new = self.calls[stream_id] = Call(self, stream_id, text(event.headers))
                self.opened.put_nowait(new)
            case h2.events.ResponseReceived() | h2.events.TrailersReceived() if call:
                call.trailers.update(text(event.headers))
            case h2.events.DataReceived() if call:
                if self.generous:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
                call.data_received(event.data)
            case h2.events.StreamEnded() if call:
                call.end()
            case h2.events.StreamReset() if call:
                call.reset_code = event.error_code
                call.was_reset.set()
                call.end()
            case h2.events.PingAckReceived():
                self._pong.set()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._window.set()

    async def send(self, stream_id: int, data: bytes) -> None:
        while data:
            room = min(self.h2.local_flow_control_window(stream_id), 16_384)
            if room <= 0:
                self._window.clear()
                await self._window.wait()
                continue
            self.h2.send_data(stream_id, data[:room])
            data = data[room:]
            self.flush()

    def goaway(self, code: ErrorCodes, last_stream_id: int) -> None:
        """Behind the back of h2, which would then refuse to go on."""
        reason = b"as the test says"
        frame = GoAwayFrame(0, last_stream_id, int(code), additional_data=reason)
        self.write(frame.serialize())

    async def round_trip(self) -> None:
        """Wait until the other side has taken all that was sent."""
        self._pong.clear()
        self.h2.ping(b"round-tr")
        self.flush()
        await self._pong.wait()

    def call(self, path: str, *metadata: tuple[str, str]) -> Call:
        """Open a stream, as a client."""
        stream_id = self.h2.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
        self.h2.send_headers(stream_id, [*headers, ("te", "trailers"), *metadata])
        call = self.calls[stream_id] = Call(self, stream_id, [])
        self.flush()
        return call

    async def ask(self, path: str, message: bytes) -> Call:
        """Make a unary call and wait for its end."""
        call = self.call(path)
        await self.send(call.stream_id, frame(message))
        self.h2.end_stream(call.stream_id)
        self.flush()
        await call.ended.wait()
        return call


class FakeBuildKit:
    """Serves a unix socket; `scripts` says what each method does, by its short name.

    Attributes:
        wires: the connections so far.
    """

    def __init__(self, directory: Path, **scripts: Script) -> None:
        self.path = directory / "bk.sock"
        self.address = f"unix://{self.path}"
        self.scripts = scripts
        self.wires: list[Wire] = []
        self.transports: list[asyncio.StreamWriter] = []
        self.gone = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = serving(self._serve, path=self.path)
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._server.__aexit__(exc_type, exc, traceback)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self) -> None:
        """Vanish."""
        for transport in self.transports:
            transport.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.transports.append(writer)
        wire = Wire(writer.write, client=False, close=writer.transport.abort)
        self.wires.append(wire)
        dispatcher = self._start(self._dispatch(wire))
        try:
            while data := await reader.read(65536):
                wire.receive_data(data)
        except ConnectionError:
            pass
        finally:
            dispatcher.cancel()
            self.gone.set()
            writer.transport.abort()

    async def _dispatch(self, wire: Wire) -> None:
        while True:
            call = await wire.opened.get()
            script = self.scripts.get(call.path.removeprefix(CONTROL))
            if script is None:
                call.refuse(12, "unknown method")
            else:
                self._start(script(call))

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        return task


def inner_connection(session: Call) -> tuple[Wire, "asyncio.Task[None]"]:
    """The connection inside a Session call, on which BuildKit is the client."""
    loop = asyncio.get_running_loop()
    outgoing: asyncio.Queue[bytes] = asyncio.Queue()
    session.respond()
    wire = Wire(outgoing.put_nowait, client=True)

    async def carry_in() -> None:
        while (message := await session.receive()) is not None:
            wire.receive_data(BytesMessage.FromString(message).data)

    async def carry() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(carry_in())
            while True:
                data = await outgoing.get()
                await session.send(BytesMessage(data=data).SerializeToString())

    return wire, loop.create_task(carry())
