"""Calls with one reply, and calls with a stream of replies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from aiobuildkit.errors import ProtocolError
from aiobuildkit.rpc.channel import Channel
from aiobuildkit.rpc.stream import ClientStream

__all__ = ["parse", "reply_to", "request", "stream", "unary"]

_Reply = TypeVar("_Reply", bound=Message)


async def request(
    channel: Channel, path: str, message: Message, metadata: Iterable[tuple[str, str]] = ()
) -> ClientStream:
    """Make a call that takes one message."""
    call = channel.open(path, metadata)
    await call.send(message.SerializeToString())
    call.half_close()
    return call


async def reply_to(call: ClientStream, reply: type[_Reply]) -> _Reply:
    """Wait for the one reply to a call, and for its status.

    Raises:
        RPCError: the call failed.
        ConnectionLost: the connection was lost.
        ProtocolError: there was not exactly one valid reply.
    """
    message = await call.receive()
    if message is None or await call.receive() is not None:
        raise ProtocolError("BuildKit did not answer a call with one message")
    return parse(reply, message)


async def unary(channel: Channel, path: str, message: Message, reply: type[_Reply]) -> _Reply:
    """Make a call with one reply; errors as in `reply_to`."""
    return await reply_to(await request(channel, path, message), reply)


async def stream(
    channel: Channel, path: str, message: Message, reply: type[_Reply]
) -> AsyncIterator[_Reply]:
    """Make a call with a stream of replies; errors as in `reply_to`."""
    call = await request(channel, path, message)
    while (data := await call.receive()) is not None:
        yield parse(reply, data)


def parse(reply: type[_Reply], message: bytes) -> _Reply:
    """Parse a message.

    Raises:
        ProtocolError: it is invalid.
    """
    try:
        return reply.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"BuildKit sent an invalid {reply.__name__}") from error
