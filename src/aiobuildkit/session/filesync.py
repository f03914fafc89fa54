"""FileSync: directories that BuildKit may read, above all a build's context.

The protocol is in `aiobuildkit.fsutil.sender`, and which files a call gets in
`aiobuildkit.fsutil.filter`; here they meet BuildKit's stream.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from aiobuildkit.errors import BuildKitError, ConnectionLost, ProtocolError, RPCError, StatusCode
from aiobuildkit.fsutil.filter import Wanted, pieces
from aiobuildkit.fsutil.sender import CHUNK, Entry, Request, Sender, State, error_packet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aiobuildkit.session.session import Handler, ServerStream

__all__ = ["Entry", "FileSync", "FileTree", "Transfer"]

_Answer = TypeVar("_Answer")

_SLICE: Final = 0.002
"""Seconds after which other tasks get a turn: flow control alone may never give them one."""

_ANNOUNCED_AT_ONCE: Final = 32
"""Entries, some 0.2 ms of work; one by one, the way through the layers costs as much as they do."""

_SELECTING: Final = ThreadPoolExecutor(1, "aiobuildkit-selection")
"""Where patterns are matched: one thread for all calls, whose pieces take turns. More would gain
nothing, as only one at a time can compute, and each would keep the event loop from its turn."""


class FileTree(Protocol):
    """Files and directories to read from; a snapshot, the same for all calls of a build."""

    def entries(self) -> Sequence[Entry]:
        """All entries, ordered by `aiobuildkit.fsutil.sender.order`, with every parent directory.

        It is called in a worker thread, so it may take its time.

        Raises:
            OSError: the tree cannot be read.
        """
        ...

    def read(self, entry: Entry, offset: int, size: int) -> bytes:
        """Read a part of a regular file: `size` bytes, fewer only at its end.

        It is called in the event loop, so it must be quick, as reading from the page cache is.

        Raises:
            OSError: it cannot be read.
        """
        ...


@dataclass(slots=True)
class Transfer:
    """What has happened in one call so far.

    Attributes:
        dir_name: the directory asked for.
        announced: entries announced.
        requested: files asked for.
        sent_bytes: of content.
        finished: whether both sides have said that it is complete; until then BuildKit may hold
            a part of the files only.
        error: why our side gave up, if it did.
    """

    dir_name: str
    announced: int = 0
    requested: int = 0
    sent_bytes: int = 0
    finished: bool = False
    error: Exception | None = None


class FileSync:
    """The attachable that serves directories by name.

    BuildKit's Dockerfile frontend asks for ``dockerfile`` and ``context``.

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
            # BuildKit shows the packet's text; the status alone would do for any other receiver.
            await stream.send(error_packet(text))
            raise RPCError(StatusCode.UNKNOWN, text) from error


async def _select(step: Callable[[], _Answer]) -> _Answer:
    return await asyncio.get_running_loop().run_in_executor(_SELECTING, step)


def _describe(error: Exception) -> str:
    """An error's text for BuildKit's user, who has no use for this machine's paths."""
    match error:
        case OSError():
            return f"cannot read the build's files: {error.strerror or error}"
        case UnicodeEncodeError():
            return f"a file's name is not UTF-8: {error.object!a}"
        case _:
            return str(error)


class _Call:
    """One call: a task takes what the receiver says, while this one sends."""

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
                    raise ConnectionLost("BuildKit left a file transfer before its end")
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
            # Cleared before we look, so that no news that comes meanwhile is missed.
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
