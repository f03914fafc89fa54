"""The asyncio client: one POST, answered whole or as a stream.

A stream is the better choice wherever a build may take long: the builder sends something every few
seconds, so a connection that died is noticed, and no proxy takes a quiet build for a dead one.
"""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import IO, Final, Self

import httpx2

from function_builder import __version__
from function_builder.client.answers import read_refusal, read_whole, retry_delay
from function_builder.client.errors import Refused, Unreachable
from function_builder.client.request import SignedBody, pack
from function_builder.client.stream import STREAM_TYPE, BuildStream
from function_builder.contract.config import BuildConfig
from function_builder.contract.result import BuildResult
from function_builder.contract.signature import SIGNATURE_HEADER
from function_builder.contract.timestamp import TIMESTAMP_HEADER, stamp

DEFAULT_URL: Final = "http://127.0.0.1:8080"
_CHUNK: Final = 1024 * 1024
_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")


class AsyncClient:
    """A client of one builder; an asynchronous context manager.

    Args:
        url: where the builder listens; ``/build`` is added when it has no path.
        payload_secret: what signs requests, without surrounding white space; None for a builder
            that checks no signature.
        patience: seconds, over all attempts, to spend waiting for a busy builder (429, or 503 with
            ``Retry-After``) before its refusal is raised.
        on_wait: called before each such wait with the refusal and the seconds.
        connect_timeout: seconds for a connection to be made.
        silence: seconds without a byte after which a stream is taken for dead; builders send
            something every 15.

    Raises:
        ValueError: the URL is no http or https address.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        payload_secret: bytes | None = None,
        patience: float = 300,
        on_wait: Callable[[Refused, float], None] | None = None,
        connect_timeout: float = 10,
        silence: float = 60,
    ) -> None:
        self.url = _build_url(url)
        self._payload_secret = payload_secret
        self._patience = patience
        self._on_wait = on_wait
        self._connect_timeout = connect_timeout
        self._silence = silence
        self._http = httpx2.AsyncClient(
            headers={
                "User-Agent": f"function-builder/{__version__}",
                "Accept-Encoding": "identity",
            },
            # A proxy from the environment never stands between a machine and itself.
            mounts={f"all://{host}": None for host in _LOCAL_HOSTS},
            # Loading the system's authorities takes 0.15 s, which plain HTTP need not spend.
            verify=self.url.startswith("https:") or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.aclose()

    async def build(
        self, directory: str | Path, config: BuildConfig, *, secrets: bytes | None = None
    ) -> BuildResult:
        """Build a directory and wait for the whole answer; a failed build is a result too.

        Args:
            directory: the build context.
            config: what to make of it.
            secrets: sealed build secrets, as ``function-builder secret seal`` writes them.

        Raises:
            ContextError: the directory cannot be sent.
            Unreachable: no answer.
            Refused: an answer that starts no build.
        """
        async with (
            self._packed(directory, config, secrets) as body,
            self._posted(body, "application/json", silence=None) as response,
        ):
            try:
                reply = await response.aread()
            except httpx2.TransportError as error:
                raise self._unreachable(error) from error
            return read_whole(response.status_code, response.headers, reply)

    @asynccontextmanager
    async def stream(
        self, directory: str | Path, config: BuildConfig, *, secrets: bytes | None = None
    ) -> AsyncIterator[BuildStream]:
        """Build a directory and follow the build; leaving the block early cancels it.

        Args:
            directory: the build context.
            config: what to make of it.
            secrets: sealed build secrets, as ``function-builder secret seal`` writes them.

        Raises:
            ContextError: the directory cannot be sent.
            Unreachable: no answer.
            Refused: an answer that starts no build.
        """
        async with (
            self._packed(directory, config, secrets) as body,
            self._posted(body, STREAM_TYPE, silence=self._silence) as response,
        ):
            stream = BuildStream(response)
            try:
                yield stream
            finally:
                await stream.aclose()

    @asynccontextmanager
    async def _packed(
        self, directory: str | Path, config: BuildConfig, secrets: bytes | None
    ) -> AsyncIterator[SignedBody]:
        abandoned = Event()
        packing = partial(pack, Path(directory), config, self._payload_secret)
        try:
            body = await asyncio.to_thread(packing, secrets=secrets, abandoned=abandoned)
        finally:
            abandoned.set()
        with body:
            yield body

    @asynccontextmanager
    async def _posted(
        self, body: SignedBody, accept: str, *, silence: float | None
    ) -> AsyncIterator[httpx2.Response]:
        """Post the body, again while the builder is busy, until something may have been begun.

        A whole answer comes after the build, in a silence of any length: ``silence`` is None then.
        """
        timeouts = httpx2.Timeout(self._silence, connect=self._connect_timeout, read=silence)
        patience, attempt = self._patience, 0
        while True:
            response = await self._post(body, accept, timeouts)
            try:
                if response.status_code in (200, 500):
                    yield response
                    return
                refused = await self._refused(response)
            finally:
                await response.aclose()
            delay = retry_delay(refused, attempt)
            if delay is None or delay > patience:
                raise refused
            if self._on_wait is not None:
                self._on_wait(refused, delay)
            await asyncio.sleep(delay)
            patience, attempt = patience - delay, attempt + 1

    async def _post(
        self, body: SignedBody, accept: str, timeouts: httpx2.Timeout
    ) -> httpx2.Response:
        headers = {
            "Accept": accept,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(body.size),
        }
        if body.signature is not None and self._payload_secret is not None:
            headers[SIGNATURE_HEADER] = body.signature
            # Each attempt has its own: a builder may take a request once.
            headers[TIMESTAMP_HEADER] = stamp(self._payload_secret, body.signature, time.time())
        request = self._http.build_request(
            "POST", self.url, content=_chunks(body.file), headers=headers, timeout=timeouts
        )
        try:
            return await self._http.send(request, stream=True)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    async def _refused(self, response: httpx2.Response) -> Refused:
        try:
            body = await response.aread()
        except httpx2.TransportError:
            body = b""
        return read_refusal(response.status_code, response.headers, body)

    def _unreachable(self, error: httpx2.TransportError) -> Unreachable:
        if isinstance(error, httpx2.ConnectTimeout):
            return Unreachable(f"no connection to {self.url} within {self._connect_timeout:g} s")
        if isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
            return Unreachable(f"cannot connect to {self.url}: {_system_reason(error)}")
        if isinstance(error, httpx2.TimeoutException):
            return Unreachable(f"{self.url} took the connection and fell silent")
        return Unreachable(f"{self.url} closed the connection without an answer")


def _build_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ValueError(f"{url!r} is no address: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no address of a builder, such as {DEFAULT_URL}")
    return str(parsed.copy_with(path="/build") if parsed.path == "/" else parsed)


async def _chunks(file: IO[bytes]) -> AsyncGenerator[bytes]:
    """The whole file, from its start at every attempt."""
    await asyncio.to_thread(file.seek, 0)
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk


def _system_reason(error: BaseException) -> str:
    """The operating system's own words, which the HTTP library keeps in the causes."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ExceptionGroup):  # one for each address that was tried
            seen = seen.exceptions[0]
        if isinstance(seen, socket.gaierror):
            return str(seen.strerror)
        if isinstance(seen, OSError) and seen.errno:
            return os.strerror(seen.errno)
        seen = seen.__cause__ or seen.__context__
    return str(error)
