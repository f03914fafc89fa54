"""Receives a request's body: hashes it while it arrives, and stores it in a spool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from function_builder.contract.errors import Refusal
from function_builder.contract.signature import Signature
from function_builder.server.spool import MEMORY_BYTES, Spool

SLOWEST_BYTES_PER_SECOND: Final = 1024
"""The slowest average speed of a body, after the first `2 * timeout` seconds.

A limit for pauses is not enough, because an upload of one byte before each limit would never end.
"""

_MAX_PIECES: Final = 1024
"""The number of pieces after which they are joined: a piece of one byte costs 30 more."""


class Intake:
    """Receives one body into a spool.

    Args:
        receive: the ASGI channel.
        signature: hashes the bytes; None: no signature is checked.
        max_bytes: the largest body.
        timeout: the longest pause, in seconds.

    Attributes:
        started: the monotonic clock's time at the start.
        received: the number of bytes so far.
        complete: whether the whole body has arrived.
    """

    def __init__(
        self,
        receive: Receive,
        *,
        signature: Signature | None,
        max_bytes: int,
        timeout: float,
    ) -> None:
        self._receive = receive
        self._signature = signature
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._waiting: asyncio.Timeout | None = None
        self._given_up: Refusal | None = None
        self.started = time.monotonic()
        self.received = 0
        self.complete = False

    def abort(self, because: Refusal) -> None:
        """Stop receiving: `into` raises the refusal, unless the body is complete."""
        self._given_up = because
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def into(self, spool: Spool) -> None:
        """Receive the whole body.

        Raises:
            Refusal: 408, 413 or 507, or the one of `abort`.
            ClientDisconnect: the client disconnected.
        """
        loop = asyncio.get_running_loop()
        storing: asyncio.Future[None] = loop.create_future()
        storing.set_result(None)
        try:
            while True:
                pieces = await self._batch()
                await asyncio.wait([storing])
                storing.result()
                if self.complete:
                    self._store(pieces, spool)
                    return
                # Hashing and writing release the interpreter's lock, so a thread does them while
                # the next batch arrives.
                storing = loop.run_in_executor(None, self._store, pieces, spool)
        finally:
            # The spool of an aborted upload is closed next, which must not happen during a write.
            await asyncio.wait([storing])

    async def _batch(self) -> list[bytes]:
        """Receive enough pieces to be worth a thread, or the rest of the body."""
        pieces: list[bytes] = []
        size = 0
        while not self.complete and size < MEMORY_BYTES:
            piece = await self._next()
            self.received += len(piece)
            if self.received > self._max_bytes:
                raise too_large(self._max_bytes)
            pieces.append(piece)
            size += len(piece)
            if len(pieces) == _MAX_PIECES:
                pieces = [b"".join(pieces)]
        return pieces

    async def _next(self) -> bytes:
        if self._given_up:
            raise self._given_up
        allowed = 2 * self._timeout + self.received / SLOWEST_BYTES_PER_SECOND
        left = max(allowed - (time.monotonic() - self.started), 0)
        try:
            async with asyncio.timeout(min(self._timeout, left)) as self._waiting:
                message = await self._receive()
        except TimeoutError as error:
            raise self._given_up or Refusal(408, self._timeout_text(left)) from error
        finally:
            self._waiting = None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self.complete = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    def _timeout_text(self, left: float) -> str:
        if left < self._timeout:
            slowest = SLOWEST_BYTES_PER_SECOND
            return f"the upload was slower than {slowest} bytes a second: send the body again"
        return f"the upload paused for more than {self._timeout:g} s: send the body again"

    def _store(self, pieces: Sequence[bytes], spool: Spool) -> None:
        if self._signature is not None:
            for piece in pieces:
                self._signature.update(piece)
        spool.append(pieces)


def too_large(max_bytes: int) -> Refusal:
    """The answer to a body over the limit."""
    return Refusal(413, f"the body is larger than the {max_bytes} bytes that this builder takes")
