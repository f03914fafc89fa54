"""One gRPC call, as its client or as its server.

Memory is limited in both directions. Messages that the caller has not received yet occupy the
stream's flow-control window. A sender waits while its stream has HIGH_WATER or more unsent bytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

from aiobuildkit.errors import BuildKitError, ConnectionLost, ProtocolError, StatusCode
from aiobuildkit.http2.compression import STEP_BYTES, MalformedHeaders, plain_steps
from aiobuildkit.rpc import framing

__all__ = ["HIGH_WATER", "ClientStream", "ServedStream", "Stream", "StreamTransport"]

HIGH_WATER = 256 * 1024
"""Bytes."""


class StreamTransport(Protocol):
    """What a stream needs of its connection, which is a `Channel`."""

    def respond(self, stream_id: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send a response's headers."""

    def send(self, stream_id: int, *data: bytes) -> None:
        """Queue DATA."""

    def unsent(self, stream_id: int) -> int:
        """Bytes of a stream that have not been sent."""

    async def drained(self, stream_id: int) -> None:
        """Wait until a stream has less than HIGH_WATER unsent bytes, or is closed."""

    def end(self, stream_id: int, trailers: Sequence[tuple[bytes, bytes]] | None = None) -> None:
        """Half-close a stream after its queued data; trailers end the call."""

    def reset(self, stream_id: int) -> None:
        """Reset a stream."""

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Return bytes to a stream's window, so that the peer can send more."""


class Stream:
    """A call's messages. One task at a time may receive; several may send."""

    def __init__(self, transport: StreamTransport, stream_id: int) -> None:
        self._transport = transport
        self._id = stream_id
        self._reader = framing.MessageReader()
        self._messages: deque[bytes] = deque()  # complete, and not yet received by the caller
        self._arrival: asyncio.Future[None] | None = None  # of what a waiting `receive` needs
        # Bytes to return to the stream's window. Negative while a complete message waits to be
        # received whose pieces were returned when they arrived.
        self._unacknowledged = 0
        self._ended = False  # no further message arrives
        self._error: BuildKitError | None = None  # why the call failed

    @property
    def waiting(self) -> int:
        """The number of messages that have arrived but were not received by the caller."""
        return len(self._messages)

    async def receive(self) -> bytes | None:
        """Wait for the next message; None after the last one.

        Raises:
            BuildKitError: why no more will come, after all that did come.
        """
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        message = self._messages.popleft()
        self._acknowledge(framing.PREFIX + len(message))
        return message

    async def send(self, *messages: bytes) -> None:
        """Send messages, after waiting while too many bytes are unsent.

        Raises:
            BuildKitError: the call has ended; the error says why.
        """
        while self._error is None and self._transport.unsent(self._id) >= HIGH_WATER:
            await self._transport.drained(self._id)
        if self._error is not None:
            raise self._error
        self._put(*(part for each in messages for part in (framing.prefix(each), each)))

    def data_received(self, data: bytes, size: int) -> None:
        """Receive DATA, which used `size` bytes of the stream's window."""
        messages = self._reader.receive_data(data)
        # Pieces of a message free their window at once. Otherwise a message larger than the window
        # could never arrive. A complete message occupies it again until it is received.
        self._acknowledge(size - sum(framing.PREFIX + len(message) for message in messages))
        if messages:
            self._messages.extend(messages)
            self._wake()

    def ended(self) -> None:
        """Handle the peer's half-close."""
        if self._reader.partial:
            self.fail(ProtocolError("a call ended in the middle of a message"))
        self._ended = True
        self._wake()

    def fail(self, error: BuildKitError) -> None:
        """End the call in both directions."""
        if self._error is None:
            self._error = error
            self._wake()

    def _put(self, *data: bytes) -> None:
        self._transport.send(self._id, *data)

    def _acknowledge(self, size: int) -> None:
        self._unacknowledged += size
        if self._unacknowledged > 0:
            self._transport.acknowledge(self._id, self._unacknowledged)
            self._unacknowledged = 0

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


class ClientStream(Stream):
    """A call that we make; it fails with the RPCError of its status."""

    def __init__(self, transport: StreamTransport, stream_id: int) -> None:
        super().__init__(transport, stream_id)
        self._headers: Sequence[tuple[bytes, bytes]] = ()  # the last: when the call ended, trailers
        self._status_due = False  # the call has ended, and its large trailers are not decoded yet

    async def receive(self) -> bytes | None:
        """Wait for the next message; None after the last one of a call that succeeded.

        Raises:
            BuildKitError: why no more will come, after all that did come.
        """
        message = await super().receive()
        if message is None and self._status_due:
            try:
                error = framing.error_of_trailers(await _plain(self._headers))
            except MalformedHeaders as malformed:
                error = framing.error_of_malformed(malformed)
            self._status_due = False
            if error is not None:
                self.fail(error)
                raise error
        return message

    def half_close(self) -> None:
        """Say that no more messages will be sent."""
        self._transport.end(self._id)

    def cancel(self, error: BuildKitError | None = None) -> None:
        """Reset the call. Messages that have arrived can still be received, before the error.

        A call that has already ended keeps its status.
        """
        self._transport.reset(self._id)
        if error is not None and not self._ended:
            self.fail(error)
        self._ended = True
        self._wake()

    def headers_received(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Store the last headers, which contain the status when the call has ended."""
        self._headers = headers

    def ended(self) -> None:
        """Handle the end of the call, with its status."""
        self._status_due = sum(len(value) for _, value in self._headers) > STEP_BYTES
        self.cancel(None if self._status_due else framing.error_of_trailers(self._headers))
        super().ended()

    def reset(self, code: int) -> None:
        """Handle the peer's reset."""
        self.fail(framing.error_of_reset(code))

    def _put(self, *data: bytes) -> None:
        if self._ended:
            raise ConnectionLost("the call has ended")
        super()._put(*data)


async def _plain(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Decode large headers, with the event loop's other work between the steps.

    A failed build's contain its Dockerfile and the failed command, in several encodings.
    """
    decoded = []
    for key, value in headers:
        parts = []
        for part in plain_steps(value):
            parts.append(part)
            await asyncio.sleep(0)
        decoded.append((key, b"".join(parts)))
    return decoded


class ServedStream(Stream):
    """A call that the peer makes; a `session.ServerStream`."""

    def __init__(
        self, transport: StreamTransport, stream_id: int, headers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        super().__init__(transport, stream_id)
        self._headers = headers
        self._responded = False

    @cached_property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        """The request's headers. If there may be many, call it in a thread."""
        return framing.metadata_of(self._headers)

    @property
    def path(self) -> str:
        """The method called, such as `/grpc.health.v1.Health/Check`."""
        return dict(self._headers).get(b":path", b"").decode("latin-1")

    def close(self, code: StatusCode, message: str = "") -> None:
        """End the call with a status, after the messages already sent."""
        last = framing.trailers if self._responded else framing.trailers_only
        self._transport.end(self._id, last(code, message))

    def reset(self, code: int) -> None:
        """Handle the peer's reset."""
        self.fail(ConnectionLost(f"BuildKit reset the call (HTTP/2 error code {code})"))

    def _put(self, *data: bytes) -> None:
        if not self._responded:
            self._responded = True
            self._transport.respond(self._id, framing.response_headers())
        super()._put(*data)
