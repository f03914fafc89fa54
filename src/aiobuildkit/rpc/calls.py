"""The two shapes of calls that we make, besides the session: one reply, or a stream of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message

from aiobuildkit.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

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
    """Wait for the one reply to a call, and for the status behind it.

    Raises:
        RPCError: the call failed.
        ConnectionLost: the connection did.
        ProtocolError: there was not one reply that can be read.
    """
    message = await call.receive()
    if message is None or await call.receive() is not None:
        raise ProtocolError("BuildKit did not answer a call with one message")
    return parse(reply, message)


async def unary(channel: Channel, path: str, message: Message, reply: type[_Reply]) -> _Reply:
    """Ask for one reply; errors as in reply_to."""
    return await reply_to(await request(channel, path, message), reply)


async def stream(
    channel: Channel, path: str, message: Message, reply: type[_Reply]
) -> AsyncIterator[_Reply]:
    """Ask for a stream of replies; errors as in reply_to."""
    call = await request(channel, path, message)
    while (data := await call.receive()) is not None:
        yield parse(reply, data)


def parse(reply: type[_Reply], message: bytes) -> _Reply:
    """Read a message.

    Raises:
        ProtocolError: it cannot be read.
    """
    try:
        return reply.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"BuildKit sent a {reply.__name__} that cannot be read") from error
