"""The object store that holds request bodies and the logs of ended builds.

obstore's synchronous calls run in threads of this module, for two reasons:

- Its asynchronous streams can abort the interpreter at its exit, because a thread of obstore's
  runtime may deliver a piece while Python is being finalized.
- The event loop's own threads check request bodies. A store that does not answer must not occupy
  them, because synchronous builds do not need it.
"""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, ParamSpec, TypeVar, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from function_builder.contract.reader import Bytes, Reader

PIECE_BYTES: Final = 8 << 20
"""The piece in which an object is transferred; two are in memory. S3's smallest is 5 MiB."""

_THREADS: Final = 8
_REQUEST_TIMEOUT: Final = "30s"
_RETRY_SECONDS: Final = 20
_FULL = re.compile(r"no space left|StorageFull|QuotaExceeded|disk quota", re.IGNORECASE)
_SCHEMES: Final = ("file", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss")

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoreError(Exception):
    """The store did not do what was asked; the text is one line, without a credential."""


class StoreFull(StoreError):
    """The store has no room."""


class NotStored(StoreError):
    """There is no object of that name."""


class StoredObject(NamedTuple):
    """One object of a listing.

    Attributes:
        key: its name.
        size: bytes.
        modified: when it was written, in UTC seconds of the store's clock.
    """

    key: str
    size: int
    modified: float


class Store:
    """Objects by name, in a directory or in a bucket.

    Args:
        url: `file:///directory`, `s3://bucket/prefix`, `gs://…` or `az://…`. Credentials, region
            and endpoint come from the environment, by the names of each cloud's own tools.
        failed: called when the store did not do what was asked, with whether it has no room. An
            object that is absent is not an error.

    Raises:
        StoreError: the URL names no store.
    """

    def __init__(self, url: str, *, failed: Callable[[bool], None] = lambda _full: None) -> None:
        self._url = url
        self._failed = failed
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise StoreError("must be file:///DIRECTORY, s3://BUCKET/PREFIX, gs://… or az://…")
        self._directory = Path(unquote(parts.path)) if parts.scheme == "file" else None
        if self._directory is not None and parts.netloc not in ("", "localhost"):
            raise StoreError("a directory needs three slashes: file:///DIRECTORY")
        self._store = self._open()

    def _open(self) -> ObjectStore:
        try:
            if self._directory is not None:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                return from_url(self._directory.as_uri())
            return from_url(
                self._url,
                client_options={
                    "timeout": _REQUEST_TIMEOUT,
                    "connect_timeout": "5s",
                    # An endpoint that was named with http:// is meant so.
                    "allow_http": _endpoint().startswith("http://"),
                },
                retry_config={
                    "max_retries": 5,
                    "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
                },
            )
        except OSError as error:
            raise StoreError(f"{error.strerror}: {error.filename}") from error
        except (BaseError, ValueError) as error:
            raise _translated(error) from error

    async def check(self) -> None:
        """Write, read and delete an object.

        Raises:
            StoreError: one of these failed.
        """
        key = f"check/{uuid.uuid4().hex}"
        await self.put(key, Bytes(b"check"))
        async for _ in self.get(key):
            pass
        await self.delete([key])

    def close(self) -> None:
        """Accept no more calls; those under way end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def put(self, key: str, reader: Reader) -> None:
        """Store an object, or replace it; it is durable on return.

        Raises:
            StoreFull: there is no room.
            StoreError: it could not be stored.
        """
        await self._call(self._put, key, reader)

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """Yield an object's bytes in pieces.

        Raises:
            NotStored: there is none.
            StoreError: it could not be read.
        """
        result = await self._call(obstore.get, self._store, key)
        pieces = iter(result.stream(min_chunk_size=PIECE_BYTES))
        while (piece := await self._call(_next_piece, pieces)) is not None:
            yield piece

    async def ranges(self, key: str, size: int) -> AsyncIterator[bytes]:
        """Yield an object's bytes in pieces of `size`, each by a request of its own.

        For slow readers: no connection waits for them, and no more than a piece is in memory.

        Raises:
            NotStored: there is none.
            StoreError: it could not be read.
        """
        end = (await self._call(obstore.head, self._store, key))["size"]
        for start in range(0, end, size):
            stop = min(start + size, end)
            piece = await self._call(obstore.get_range, self._store, key, start=start, end=stop)
            yield bytes(piece)

    async def copy(self, key: str, new_key: str) -> None:
        """Store an object under another name too.

        Raises:
            NotStored: there is none.
            StoreError: it could not be copied.
        """
        await self._call(obstore.copy, self._store, key, new_key)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are ignored.

        Raises:
            StoreError: they could not be deleted.
        """
        for key in keys:
            try:
                await self._call(obstore.delete, self._store, key)
            except NotStored:
                continue

    async def list(self, prefix: str) -> AsyncIterator[Sequence[StoredObject]]:
        """Yield all objects whose name begins with `prefix` and a slash, some hundred at a time.

        Raises:
            StoreError: they could not be listed.
        """
        batches = iter(obstore.list(self._store, prefix, chunk_size=500))
        while (batch := await self._call(next, batches, None)) is not None:
            yield [
                StoredObject(each["path"], each["size"], each["last_modified"].timestamp())
                for each in batch
            ]

    def _put(self, key: str, reader: Reader) -> None:
        file = cast("IO[bytes]", _File(reader))
        obstore.put(self._store, key, file, chunk_size=PIECE_BYTES, max_concurrency=1)
        if self._directory is not None:
            path = self._directory / key
            _sync(path)
            _sync(path.parent)

    async def _call(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        def run() -> _T:
            try:
                return call(*args, **kwargs)
            except (BaseError, OSError) as error:
                raise _translated(error) from error

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except NotStored:
            raise
        except StoreError as error:
            self._failed(isinstance(error, StoreFull))
            raise


class _File:
    """A Reader as the file object that obstore reads."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._place = 0

    def read(self, size: int = -1) -> bytes:
        left = self._reader.size - self._place
        piece = self._reader.read(self._place, left if size < 0 else min(size, left))
        self._place += len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._reader.size}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _endpoint() -> str:
    """The S3 server that the environment names in place of Amazon's."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next(filter(None, map(os.environ.get, names)), "")


def _next_piece(pieces: Iterator[Any]) -> bytes | None:
    piece = next(pieces, None)
    return None if piece is None else bytes(piece)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _translated(error: Exception) -> StoreError:
    # obstore's text continues with a dump of its own structures, which may hold a signed URL.
    text = (str(error).strip().splitlines() or ["no reason was given"])[0]
    if isinstance(error, FileNotFoundError):
        return NotStored(text)
    if _FULL.search(str(error)):
        return StoreFull("it has no room")
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return StoreError(text)
