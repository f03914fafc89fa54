"""FileSync: directories that BuildKit may read, such as a build's context.

`aiobuildkit.fsutil.sender` has the protocol, and `aiobuildkit.fsutil.filter` chooses the files of a
call. This module connects them to BuildKit's stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

from aiobuildkit.errors import BuildKitError, ConnectionLost, ProtocolError, RPCError, StatusCode
from aiobuildkit.fsutil.filter import Wanted, pieces
from aiobuildkit.fsutil.sender import CHUNK, Entry, Request, Sender, State, error_packet
from aiobuildkit.session.session import Handler, ServerStream

__all__ = ["Entry", "FileSync", "FileTree", "Transfer"]

_Answer = TypeVar("_Answer")

_SLICE: Final = 0.002
"""Seconds after which other tasks get a turn, because flow control may never pause the sender."""

_ANNOUNCED_AT_ONCE: Final = 32
"""Entries sent together, some 0.2 ms of work. Sent one by one, they would take twice the time."""

_SELECTING: Final = ThreadPoolExecutor(1, "aiobuildkit-selection")
"""The thread that matches patterns for all calls, in pieces that take turns. More threads would not
be faster because of the GIL, and each would delay the event loop."""


class FileTree(Protocol):
    """Files and directories to read from; a snapshot, the same for all calls of a build."""

    def entries(self) -> Sequence[Entry]:
        """All entries, ordered by `aiobuildkit.fsutil.sender.order`, with every parent directory.

        It is called in a worker thread, so it may block.

        Raises:
            OSError: the tree cannot be read.
        """
        ...

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Read a part of a regular file: `size` bytes, fewer only at its end.

        It is called in the event loop, so it must be fast, such as a read from the page cache.

        Raises:
            OSError: it cannot be read.
        """
        ...


@dataclass(slots=True)
class Transfer:
    """The state of one call.

    Attributes:
        dir_name: the requested directory.
        announced: the number of entries announced.
        requested: the number of files requested.
        sent_bytes: of content.
        finished: whether both sides have sent FIN; until then BuildKit may have only some of the
            files. error: why our side aborted the call, if it did.
    """

    dir_name: str
    announced: int = 0
    requested: int = 0
    sent_bytes: int = 0
    finished: bool = False
    error: Exception | None = None


class FileSync:
    """The attachable that serves directories by name.

    BuildKit's Dockerfile frontend asks for `dockerfile` and `context`.

    Attributes:
        transfers: one for each call, in the order in which they began.
    """

    def __init__(self, trees: Mapping[str, FileTree]) -> None:
        self._trees = dict(trees)
        self.transfers: list[Transfer] = []

    def handlers(self) -> Mapping[str, Handler]:
        """The methods served."""
        return {"/moby.filesync.v1.FileSync/DiffCopy": self._diff_copy}

    async def _diff_copy(self, stream: ServerStream) -> None:
        wanted = await _select(lambda: Wanted.parse(stream.metadata))
        tree = self._trees.get(wanted.dir_name)
        if tree is None:
            raise RPCError(StatusCode.NOT_FOUND, f"no directory {wanted.dir_name!r} is shared")
        transfer = Transfer(wanted.dir_name)
        self.transfers.append(transfer)
        try:
            await _Call(stream, tree, transfer).run(wanted)
        except (OSError, ValueError, ProtocolError) as error:
            transfer.error = error
            text = _describe(error)
            # BuildKit shows the packet's text, not that of the status.
            await stream.send(error_packet(text))
            raise RPCError(StatusCode.UNKNOWN, text) from error


async def _select(step: Callable[[], _Answer]) -> _Answer:
    return await asyncio.get_running_loop().run_in_executor(_SELECTING, step)


def _describe(error: Exception) -> str:
    """An error's text for BuildKit's user, without paths of this machine."""
    match error:
        case OSError():
            return f"cannot read the build's files: {error.strerror or error}"
        case UnicodeEncodeError():
            return f"a file's name is not UTF-8: {error.object!a}"
        case _:
            return str(error)


class _Call:
    """One call: one task receives packets, and this one sends."""

    def __init__(self, stream: ServerStream, tree: FileTree, transfer: Transfer) -> None:
        self._stream = stream
        self._tree = tree
        self._transfer = transfer
        self._sender = Sender()
        self._news = asyncio.Event()
        self._failure: BuildKitError | None = None
        self._turn = time.monotonic()

    async def run(self, wanted: Wanted) -> None:
        receiving = asyncio.create_task(self._receive())
        try:
            await self._announce(wanted)
            await self._serve()
        finally:
            receiving.cancel()

    async def _receive(self) -> None:
        try:
            while self._sender.state is not State.CLOSING:
                message = await self._stream.receive()
                if message is None:
                    raise ConnectionLost("BuildKit ended a file transfer early")
                self._sender.receive(message)
                self._transfer.requested = self._sender.requested
                self._news.set()
        except BuildKitError as error:
            self._failure = error
            self._news.set()

    async def _announce(self, wanted: Wanted) -> None:
        entries = await asyncio.to_thread(self._tree.entries)
        selection = pieces(entries, wanted)
        while (piece := await _select(partial(next, selection, None))) is not None:
            for start in range(0, len(piece), _ANNOUNCED_AT_ONCE):
                packets = map(self._sender.announce, piece[start : start + _ANNOUNCED_AT_ONCE])
                await self._stream.send(*packets)
                self._transfer.announced = self._sender.announced
                await self._take_turns()
            await self._take_turns()
        await self._stream.send(self._sender.end_list())

    async def _serve(self) -> None:
        while True:
            # Cleared before the check, so that no event in between is missed.
            self._news.clear()
            await self._take_turns()
            if self._sender.state is State.CLOSING:
                break
            request = self._sender.next_request()
            if request is not None:
                await self._send_file(request)
            else:
                await self._news.wait()
        await self._stream.send(self._sender.fin())
        self._transfer.finished = True

    async def _send_file(self, request: Request) -> None:
        entry = request.entry
        offset = 0
        while offset < entry.size:
            content = self._tree.read(entry, offset, min(CHUNK, entry.size - offset))
            if not content:
                raise OSError(f"{entry.path} ends after {offset} of {entry.size} bytes")
            offset += len(content)
            await self._stream.send(self._sender.data(request, content))
            self._transfer.sent_bytes += len(content)
            await self._take_turns()
        await self._stream.send(self._sender.end_file(request))

    async def _take_turns(self) -> None:
        if time.monotonic() - self._turn > _SLICE:
            await asyncio.sleep(0)
            self._turn = time.monotonic()
        if self._failure is not None:
            raise self._failure
