"""The client without asyncio: each call waits for the asynchronous call in another thread."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack, cast

from function_builder.client.address import DEFAULT_URL
from function_builder.client.builds import BuildHandle
from function_builder.client.client import AsyncClient
from function_builder.client.errors import ClientError
from function_builder.client.loop_thread import LoopThread
from function_builder.client.options import BuildOptions, Files
from function_builder.client.stream import BuildStream
from function_builder.contract.builds import BuildInfo, BuildState
from function_builder.contract.config import BuildConfig
from function_builder.contract.result import BuildResult

_T = TypeVar("_T")


class Client:
    """A client of one builder for code without asyncio; a context manager.

    Threads may share it. `close` ends the builds that run: their calls raise RuntimeError. A
    process that was forked needs a client of its own once this one has been used.

    The arguments are those of `AsyncClient`; its callbacks are called in the client's own
    thread.
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
        manifest: bool = True,
        on_manifest: Callable[[int, int], None] | None = None,
        on_left_out: Callable[[int, int], None] | None = None,
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
            manifest=manifest,
            on_manifest=on_manifest,
            on_left_out=on_left_out,
        )
        self._loop = LoopThread(self._client.close)

    @property
    def url(self) -> str:
        """The builder's address, without credentials."""
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
        """The build with an id, as `AsyncClient.handle` returns it."""
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

    def usage(self, *, first: str = "", last: str = "", tenant: str = "") -> Mapping[str, Any]:
        """The usage of tenants, as `AsyncClient.usage` returns it."""
        return self._loop.run(partial(self._client.usage, first=first, last=last, tenant=tenant))


class Handle:
    """A `BuildHandle` for code without asyncio.

    Attributes:
        id: the build's id.
        token: as `BuildHandle.token`.
    """

    def __init__(self, build: BuildHandle, loop: LoopThread) -> None:
        self.id = build.id
        self.token = build.token
        self._build = build
        self._loop = loop

    def status(self) -> BuildInfo:
        """Request the state of the build, as `BuildHandle.status` does."""
        return self._loop.run(self._build.status)

    def log(self, *, after: int = 0) -> Iterator[BuildResult]:
        """Yield the log until the build ends, as `BuildHandle.log` does."""
        return _iterate(self._build.log(after=after), self._loop)

    def wait(self) -> BuildResult:
        """Wait for the build's end, as `BuildHandle.wait` does."""
        return self._loop.run(self._build.wait)

    def cancel(self) -> BuildInfo:
        """Cancel the build, as `BuildHandle.cancel` does."""
        return self._loop.run(self._build.cancel)

    def retry(self) -> Handle:
        """Build the same body again, as `BuildHandle.retry` does."""
        return Handle(self._loop.run(self._build.retry), self._loop)


def _iterate(items: AsyncGenerator[_T], loop: LoopThread) -> Iterator[_T]:
    """Yield the values of an asynchronous generator in the loop; a break ends it there too."""
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

    def __init__(self, stream: BuildStream, loop: LoopThread) -> None:
        self._stream = stream
        self._loop = loop

    def __iter__(self) -> Iterator[BuildResult]:
        """Continue after the last iteration."""
        while (progress := self._loop.run(self._next)) is not None:
            yield progress

    def result(self) -> BuildResult:
        """Wait for the build's end, as `BuildStream.result` does."""
        return self._loop.run(self._stream.result)

    async def _next(self) -> BuildResult | None:
        return await anext(aiter(self._stream), None)
