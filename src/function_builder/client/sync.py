"""The same client without asyncio: each call runs the asynchronous one up to its answer."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from function_builder.client.client import AsyncClient
from function_builder.client.stream import BuildStream
from function_builder.contract.config import BuildConfig
from function_builder.contract.result import BuildResult


class Client:
    """A client of one builder for code without asyncio; a context manager.

    It drives an `AsyncClient` on an event loop of its own, and so cannot be used where one already
    runs: use the `AsyncClient` itself there.

    Args:
        client: what to drive; it is closed with this one.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._runner.run(self._client.__aexit__(*exc))
        finally:
            self._runner.close()

    def build(
        self, directory: str | Path, config: BuildConfig, *, secrets: bytes | None = None
    ) -> BuildResult:
        """Build a directory and wait for the whole answer, as `AsyncClient.build` does."""
        return self._runner.run(self._client.build(directory, config, secrets=secrets))

    @contextmanager
    def stream(
        self, directory: str | Path, config: BuildConfig, *, secrets: bytes | None = None
    ) -> Iterator["Stream"]:
        """Build a directory and follow the build, as `AsyncClient.stream` does."""
        following = self._client.stream(directory, config, secrets=secrets)
        stream = self._runner.run(following.__aenter__())
        try:
            yield Stream(stream, self._runner)
        finally:
            self._runner.run(following.__aexit__(None, None, None))


class Stream:
    """A `BuildStream` for code without asyncio: an iterator, then `result`."""

    def __init__(self, stream: BuildStream, runner: asyncio.Runner) -> None:
        self._stream = stream
        self._runner = runner

    def __iter__(self) -> Iterator[BuildResult]:
        """Go on from where the last iteration stopped."""
        while (progress := self._runner.run(self._next())) is not None:
            yield progress

    def result(self) -> BuildResult:
        """Wait for the build's end, as `BuildStream.result` does."""
        return self._runner.run(self._stream.result())

    async def _next(self) -> BuildResult | None:
        return await anext(aiter(self._stream), None)
