"""The same client without asyncio: each call waits for the asynchronous one in another thread.

One event loop, in a thread of its own, serves all threads that share a client: a loop for each call
would need locks around the connections, and a loop for each thread could not be closed by another.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Generic, ParamSpec, Self, TypeVar, Unpack, cast

from function_builder.client.address import DEFAULT_URL
from function_builder.client.builds import BuildHandle
from function_builder.client.client import AsyncClient
from function_builder.client.errors import ClientError
from function_builder.client.options import BuildOptions, Files
from function_builder.client.stream import BuildStream
from function_builder.contract.builds import BuildInfo, BuildState
from function_builder.contract.config import BuildConfig
from function_builder.contract.result import BuildResult

_P = ParamSpec("_P")
_T = TypeVar("_T")

_CANCEL_SECONDS: Final = 10.0
"""For how long an interrupted call waits for its connection to be closed."""


class Client:
    """A client of one builder for code without asyncio; a context manager.

    Threads may share it. `close` ends the builds that run: their calls raise RuntimeError. A
    process that was forked needs a client of its own once this one has been used.

    The arguments are those of `AsyncClient`; `on_retry` and `on_upload` are called in the client's
    own thread.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        payload_secret: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        retry_timeout: float = 300,
        on_retry: Callable[[ClientError, float], None] | None = None,
        on_upload: Callable[[int, int], None] | None = None,
        connect_timeout: float = 10,
        read_timeout: float = 60,
        require_signed_answers: bool | None = None,
        builder_public_key: str | bytes | None = None,
    ) -> None:
        self._client = AsyncClient(
            url,
            payload_secret=payload_secret,
            headers=headers,
            ssl_context=ssl_context,
            retry_timeout=retry_timeout,
            on_retry=on_retry,
            on_upload=on_upload,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            require_signed_answers=require_signed_answers,
            builder_public_key=builder_public_key,
        )
        self._loop = _LoopThread(self._client.close)

    @property
    def url(self) -> str:
        """Where requests go, without credentials."""
        return self._client.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; builds that still run are cancelled by their builder."""
        self._loop.close()

    def public_key(self) -> str:
        """Ask for the builder's key for build secrets, as `AsyncClient.public_key` does."""
        return self._loop.run(self._client.public_key)

    def build(
        self,
        directory: str | Path | None = None,
        config: BuildConfig | None = None,
        *,
        files: Files | None = None,
        secrets: bytes | None = None,
        **options: Unpack[BuildOptions],
    ) -> BuildResult:
        """Build, and wait for the whole answer, as `AsyncClient.build` does.

        Raises:
            RuntimeError: the client is closed, or was while the build ran.
        """
        return self._loop.run(
            self._client.build, directory, config, files=files, secrets=secrets, **options
        )

    @contextmanager
    def stream(
        self,
        directory: str | Path | None = None,
        config: BuildConfig | None = None,
        *,
        files: Files | None = None,
        secrets: bytes | None = None,
        **options: Unpack[BuildOptions],
    ) -> Iterator[Stream]:
        """Build, and follow the build, as `AsyncClient.stream` does.

        Raises:
            RuntimeError: the client is closed, or was while the build ran.
        """
        following = self._client.stream(directory, config, files=files, secrets=secrets, **options)
        stream = self._loop.run(following.__aenter__)
        try:
            yield Stream(stream, self._loop)
        finally:
            if not self._loop.closed:
                self._loop.run(following.__aexit__, None, None, None)

    def submit(
        self,
        directory: str | Path | None = None,
        config: BuildConfig | None = None,
        *,
        files: Files | None = None,
        secrets: bytes | None = None,
        idempotency_key: str | None = None,
        callback_url: str | None = None,
        callback_events: Sequence[str] = (),
        **options: Unpack[BuildOptions],
    ) -> Handle:
        """Queue a build, as `AsyncClient.submit` does.

        Raises:
            RuntimeError: the client is closed, or was meanwhile.
        """
        build = self._loop.run(
            self._client.submit,
            directory,
            config,
            files=files,
            secrets=secrets,
            idempotency_key=idempotency_key,
            callback_url=callback_url,
            callback_events=callback_events,
            **options,
        )
        return Handle(build, self._loop)

    def handle(self, build_id: str, *, token: str | None = None) -> Handle:
        """The build of an id, as `AsyncClient.handle` gives it."""
        return Handle(self._client.handle(build_id, token=token), self._loop)

    def builds(
        self,
        *,
        status: BuildState | str | Sequence[BuildState | str] = (),
        repository: str = "",
        page: int = 50,
    ) -> Iterator[BuildInfo]:
        """Yield the builder's builds, newest first, as `AsyncClient.builds` does."""
        found = self._client.builds(status=status, repository=repository, page=page)
        return _iterate(found, self._loop)


class Handle:
    """A `BuildHandle` for code without asyncio.

    Attributes:
        id: the build's id.
        token: as `BuildHandle.token`.
    """

    def __init__(self, build: BuildHandle, loop: _LoopThread) -> None:
        self.id = build.id
        self.token = build.token
        self._build = build
        self._loop = loop

    def status(self) -> BuildInfo:
        """Ask how the build stands, as `BuildHandle.status` does."""
        return self._loop.run(self._build.status)

    def log(self, *, after: int = 0) -> Iterator[BuildResult]:
        """Yield the log until the build ends, as `BuildHandle.log` does."""
        return _iterate(self._build.log(after=after), self._loop)

    def wait(self) -> BuildResult:
        """Wait for the build's end, as `BuildHandle.wait` does."""
        return self._loop.run(self._build.wait)

    def cancel(self) -> BuildInfo:
        """Stop the build, as `BuildHandle.cancel` does."""
        return self._loop.run(self._build.cancel)

    def retry(self) -> Handle:
        """Build the same body again, as `BuildHandle.retry` does."""
        return Handle(self._loop.run(self._build.retry), self._loop)


def _iterate(items: AsyncGenerator[_T], loop: _LoopThread) -> Iterator[_T]:
    """Yield what an asynchronous generator yields in the loop; leaving ends it there too."""
    end = object()

    async def following() -> _T | object:
        return await anext(items, end)

    try:
        while (item := loop.run(following)) is not end:
            yield cast("_T", item)
    finally:
        if not loop.closed:
            loop.run(items.aclose)


class Stream:
    """A `BuildStream` for code without asyncio: an iterator, then `result`."""

    def __init__(self, stream: BuildStream, loop: _LoopThread) -> None:
        self._stream = stream
        self._loop = loop

    def __iter__(self) -> Iterator[BuildResult]:
        """Go on from where the last iteration stopped."""
        while (progress := self._loop.run(self._next)) is not None:
            yield progress

    def result(self) -> BuildResult:
        """Wait for the build's end, as `BuildStream.result` does."""
        return self._loop.run(self._stream.result)

    async def _next(self) -> BuildResult | None:
        return await anext(aiter(self._stream), None)


class _Call(Generic[_T]):
    """A coroutine function's call in a loop, for another thread that waits for its outcome.

    `asyncio.run_coroutine_threadsafe` would do, but for one thing: its future is done as soon as it
    is cancelled, and an interrupted thread has to wait until the call has cleaned up.
    """

    def __init__(self, function: Callable[[], Coroutine[Any, Any, _T]]) -> None:
        self.outcome: concurrent.futures.Future[_T] = concurrent.futures.Future()
        self._function = function
        self._task: asyncio.Task[_T] | None = None

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._function())
        self._task.add_done_callback(self._settle)

    def cancel(self) -> None:
        if self._task is None:
            self.outcome.cancel()
        else:
            self._task.cancel()

    def _settle(self, task: asyncio.Task[_T]) -> None:
        if task.cancelled():
            self.outcome.cancel()
        elif error := task.exception():
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(task.result())


class _LoopThread:
    """An event loop in a thread of its own, which begins with the first call.

    Args:
        finish: is called in the loop, last, if there was a first call.
    """

    def __init__(self, finish: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.closed = False
        self._finish = finish
        self._lock = threading.Lock()
        self._process: int | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    def run(
        self,
        function: Callable[_P, Coroutine[Any, Any, _T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Call a coroutine function in the loop and wait for what it returns.

        What interrupts the waiting thread (KeyboardInterrupt) cancels the call.
        """
        # Before the lock: the thread that held it at a fork is not in the child.
        if self._process not in (None, os.getpid()):
            raise RuntimeError("the client was used before a fork: make one in this process")
        if self._thread is threading.current_thread():
            raise RuntimeError("the client was called from its own on_retry")
        call = _Call(functools.partial(function, *args, **kwargs))
        try:
            self._schedule(call.begin)
            return call.outcome.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError(
                "the client was closed before the build ended; the builder cancels the build"
            ) from None
        except BaseException:
            if not call.outcome.done() and self._loop is not None and not self.closed:
                self._loop.call_soon_threadsafe(call.cancel)
                # The connection is closed by then, which is what cancels the build.
                with suppress(Exception):
                    call.outcome.result(_CANCEL_SECONDS)
            raise

    def _schedule(self, begin: Callable[[], None]) -> None:
        with self._lock:
            if self.closed:
                raise RuntimeError("the client is closed")
            loop = self._loop or self._start()
            loop.call_soon_threadsafe(begin)

    def close(self) -> None:
        """Cancel what runs, and end the thread."""
        if self._process not in (None, os.getpid()):
            self.closed = True
            return
        with self._lock:
            if self._loop is not None and not self.closed:
                self._loop.call_soon_threadsafe(self._stop.set)
            self.closed = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _start(self) -> asyncio.AbstractEventLoop:
        begun: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        # A daemon: a program that does not close its client ends all the same.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(begun)), name="function-builder", daemon=True
        )
        self._thread.start()
        self._process = os.getpid()
        self._loop = begun.result()
        return self._loop

    async def _serve(self, begun: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
        begun.set_result(asyncio.get_running_loop())
        await self._stop.wait()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._finish()
