"""The session: BuildKit calls services of this client.

The call `Control/Session` carries a second HTTP/2 connection. BuildKit is its client, and the
attachables are the server. An attachable offers gRPC methods, each with a handler for one call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar
from uuid import uuid4

from google.protobuf.message import DecodeError, Message

from aiobuildkit.errors import BuildKitError, ConnectionLost, ProtocolError, RPCError, StatusCode
from aiobuildkit.http2.connection import HTTP2
from aiobuildkit.protos.control_pb2 import BytesMessage
from aiobuildkit.rpc.channel import Channel
from aiobuildkit.rpc.stream import ClientStream, ServedStream

__all__ = ["Attachable", "Handler", "ServerStream", "Session", "unary"]

TUNNEL_MESSAGE = 64 * 1024
"""Bytes of the inner connection in one message. BuildKit only reads complete messages."""

_log = logging.getLogger(__name__)


class ServerStream(Protocol):
    """One call from BuildKit."""

    @property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        """Request headers: keys in lower case, each with all its values in order."""
        ...

    async def receive(self) -> bytes | None:
        """Receive the next message; None after BuildKit's half-close.

        Raises:
            ConnectionLost: the call was reset, or the session or its connection ended.
        """
        ...

    async def send(self, *messages: bytes) -> None:
        """Send messages, in order; waits while BuildKit's flow-control window is full.

        Raises:
            ConnectionLost: as in `receive`.
        """
        ...


Handler: TypeAlias = Callable[[ServerStream], Awaitable[None]]
"""Serves one call: a return ends it with grpc-status 0, an RPCError with its status."""


class Attachable(Protocol):
    """A service that a session offers BuildKit."""

    def handlers(self) -> Mapping[str, Handler]:
        """The methods served, such as `/moby.filesync.v1.FileSync/DiffCopy`."""
        ...


_Request = TypeVar("_Request", bound=Message)


def unary(request: type[_Request], answer: Callable[[_Request], Awaitable[Message]]) -> Handler:
    """A handler for a method with one request and one reply."""

    async def handle(stream: ServerStream) -> None:
        message = await stream.receive()
        try:
            parsed = request.FromString(message or b"")
        except DecodeError as error:
            raise RPCError(StatusCode.INVALID_ARGUMENT, str(error)) from error
        await stream.send((await answer(parsed)).SerializeToString())

    return handle


class Session:
    """The services for one build, under an ID that the build names.

    Args:
        attachables: the services; `Health` must be among them.
        shared_key: BuildKit compares a build context with the files of earlier sessions with the
            same key. Different contexts must not share a key.
        session_id: its name; default: a random one.

    Attributes:
        id: its name.

    Raises:
        ValueError: two attachables offer the same method.
    """

    def __init__(
        self, attachables: Iterable[Attachable], *, shared_key: str, session_id: str = ""
    ) -> None:
        self.id = session_id or uuid4().hex
        self._shared_key = shared_key
        self._handlers: dict[str, Handler] = {}
        for attachable in attachables:
            for method, handler in attachable.handlers().items():
                if method in self._handlers:
                    raise ValueError(f"two attachables offer {method}")
                self._handlers[method] = handler
        self._calls: set[asyncio.Task[None]] = set()

    def metadata(self) -> list[tuple[str, str]]:
        """Headers that announce the session (BuildKit's `session/session.go`)."""
        return [
            ("x-docker-expose-session-uuid", self.id),
            ("x-docker-expose-session-sharedkey", self._shared_key),
            *(("x-docker-expose-session-grpc-method", method) for method in self._handlers),
        ]

    async def run(self, tunnel: ClientStream) -> None:
        """Serve until BuildKit ends the session.

        Raises:
            BuildKitError: the session or its connection failed.
        """
        channel = Channel(HTTP2(client=False), accept=self._accept)
        writer = asyncio.create_task(_carry_out(channel, tunnel))
        try:
            while (message := await tunnel.receive()) is not None:
                channel.receive_data(_unwrap(message))
                if channel.lost is not None:
                    raise channel.lost
        finally:
            channel.lose(ConnectionLost("the session has ended"))
            tasks = [writer, *self._calls]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, stream: ServedStream) -> None:
        call = asyncio.create_task(self._serve(stream))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _serve(self, stream: ServedStream) -> None:
        handler = self._handlers.get(stream.path)
        if handler is None:
            stream.close(StatusCode.UNIMPLEMENTED, f"unknown method {stream.path}")
            return
        try:
            await handler(stream)
        except asyncio.CancelledError:
            # Cancelled by the end of the session, or because the handler awaited something that was
            # cancelled. In the second case BuildKit waits for an answer.
            stream.close(StatusCode.CANCELLED, f"{stream.path} was cancelled")
            raise
        except RPCError as error:
            stream.close(error.code, error.message)
        except BuildKitError as error:
            # The call has usually ended, so BuildKit does not read this.
            stream.close(StatusCode.ABORTED, str(error))
        except Exception:  # noqa: BLE001 (no exception may end the session)
            # The reason is only logged here, because it may contain secrets.
            _log.exception("%s failed", stream.path)
            stream.close(StatusCode.INTERNAL, f"the client failed to serve {stream.path}")
        else:
            stream.close(StatusCode.OK)


async def _carry_out(channel: Channel, tunnel: ClientStream) -> None:
    while data := await channel.data_to_send():
        for start in range(0, len(data), TUNNEL_MESSAGE):
            piece = BytesMessage(data=data[start : start + TUNNEL_MESSAGE])
            await tunnel.send(piece.SerializeToString())


def _unwrap(message: bytes) -> bytes:
    try:
        return BytesMessage.FromString(message).data
    except DecodeError as error:
        raise ProtocolError("BuildKit sent an invalid session message") from error
