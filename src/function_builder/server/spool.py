"""A request's body on its way in: hashed as it arrives, in memory or in a file without a name."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from pathlib import Path
from typing import IO, Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from function_builder.contract.errors import Refusal
from function_builder.contract.signature import Signature

MEMORY_BYTES: Final = 1 << 20
"""A body up to this size stays in memory; it is also the piece in which a larger one is written."""


class Spool:
    """A body that has arrived; a Reader of the contract. Its file has no name from the first."""

    def __init__(self) -> None:
        self._memory = b""
        self._file: IO[bytes] | None = None
        self.size = 0

    def append(self, piece: bytes, directory: Path) -> None:
        """Add bytes at the end; may block on the disk.

        Raises:
            Refusal: 507: the disk is full.
        """
        if self._file is None and not self.size and len(piece) <= MEMORY_BYTES:
            self._memory = piece
        else:
            try:
                self._write(piece, directory)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise Refusal(507, "the builder's disk is full: try again later") from error
                raise
        self.size += len(piece)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from an offset; fewer only at the end."""
        if self._file is None:
            return self._memory[offset : offset + size]
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        """Give memory and disk back."""
        self._memory = b""
        if self._file is not None:
            self._file.close()

    def _write(self, piece: bytes, directory: Path) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 (kept)
            first, self._memory = self._memory, b""
            self._write(first, directory)
        view = memoryview(piece)
        while view:
            view = view[os.write(self._file.fileno(), view) :]


class Intake:
    """Takes one body into a spool.

    Args:
        receive: the ASGI channel.
        signature: what the bytes are hashed into; None: nobody asks.
        max_bytes: the largest body.
        timeout: seconds without a byte.
        directory: where a large body's file lies.

    Attributes:
        received: bytes so far.
        complete: whether the body is here.
    """

    def __init__(
        self,
        receive: Receive,
        *,
        signature: Signature | None,
        max_bytes: int,
        timeout: float,
        directory: Path,
    ) -> None:
        self._receive = receive
        self._signature = signature
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._directory = directory
        self._waiting: asyncio.Timeout | None = None
        self._given_up = False
        self.received = 0
        self.complete = False

    def give_up(self) -> None:
        """Wait no longer for this body: `into` ends with 408."""
        self._given_up = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def into(self, spool: Spool) -> None:
        """Receive to the end.

        Raises:
            Refusal: 408, 413 or 507.
            ClientDisconnect: the client went away.
        """
        pending = bytearray()
        while not self.complete:
            chunk = await self._next()
            self.received += len(chunk)
            if self.received > self._max_bytes:
                raise too_large(self._max_bytes)
            pending += chunk
            if len(pending) >= MEMORY_BYTES:
                # Hashing and writing release the interpreter's lock, so a thread pays off.
                await asyncio.to_thread(self._take, bytes(pending), spool)
                pending.clear()
        self._take(bytes(pending), spool)

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(0 if self._given_up else self._timeout) as self._waiting:
                message = await self._receive()
        except TimeoutError as error:
            raise Refusal(408, self._why_not()) from error
        finally:
            self._waiting = None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self.complete = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    def _why_not(self) -> str:
        if self._given_up:
            return "the upload was the slowest of too many: send the body again"
        return f"the upload paused for more than {self._timeout:g} s: send the body again"

    def _take(self, piece: bytes, spool: Spool) -> None:
        if self._signature is not None:
            self._signature.update(piece)
        spool.append(piece, self._directory)


def too_large(max_bytes: int) -> Refusal:
    """The answer to a body over the limit."""
    return Refusal(413, f"the body is larger than the {max_bytes} bytes that this builder takes")
