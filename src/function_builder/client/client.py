"""The asyncio client: one POST, answered whole or as a stream.

A stream is the better choice wherever a build may take long: the builder sends something every few
seconds, so a connection that died is noticed, and no proxy takes a quiet build for a dead one.
"""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import IO, Final, Self, Unpack

import httpx2

from function_builder import __version__
from function_builder.client.address import DEFAULT_URL, LOCAL_HOSTS, Address
from function_builder.client.answers import read_refusal, read_whole, retry_delay
from function_builder.client.builder_key import KeyQuestion, check_sealed
from function_builder.client.errors import Refused
from function_builder.client.failures import explain
from function_builder.client.options import BuildOptions, Files, build_config, chosen_context
from function_builder.client.request import SignedBody, pack
from function_builder.client.sealing import read_public_key
from function_builder.client.stream import STREAM_TYPE, BuildStream
from function_builder.client.tls import tls_context
from function_builder.client.verifier import Verifier
from function_builder.contract.answer_signature import build_answer
from function_builder.contract.config import BuildConfig
from function_builder.contract.result import BuildResult
from function_builder.contract.secrets import sealed_for
from function_builder.contract.signature import SIGNATURE_HEADER
from function_builder.contract.timestamp import TIMESTAMP_HEADER, stamp

_CHUNK: Final = 1024 * 1024
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.1
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class AsyncClient:
    """A client of one builder; an asynchronous context manager.

    Args:
        url: where the builder listens; ``/build`` is added when it has no path. A user and a
            password in it are sent as basic authentication, and never shown.
        payload_secret: what signs requests, without surrounding white space; None for a builder
            that checks no signature.
        headers: sent with each request, for a proxy before the builder.
        ssl_context: for https, such as `tls_context` makes; None trusts what the system trusts.
        retry_timeout: seconds, over all attempts, to spend waiting for a busy builder (429, or 503
            with ``Retry-After``) before its refusal is raised.
        on_retry: called before each such wait with the refusal and the seconds.
        connect_timeout: seconds for a connection to be made.
        read_timeout: seconds without a byte after which a stream counts as lost; builders send
            something every 15.
        require_signed_answers: whether an image is believed only if the payload secret signed the
            answer. pro-builder signs none. None: with a payload secret, unless the URL is https.
            A signature that is there must be right in any case.
        builder_public_key: the builder's key for build secrets, as `seal_secrets` accepts it:
            secrets that were sealed for another key are not sent. None: the builder is asked for
            its key, where `require_signed_answers` holds.

    Raises:
        ValueError: the URL, or the environment's proxy, is not an http or https address, a header
            cannot be sent, or what ``SSL_CERT_FILE`` names cannot be read.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        payload_secret: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        retry_timeout: float = 300,
        on_retry: Callable[[Refused, float], None] | None = None,
        connect_timeout: float = 10,
        read_timeout: float = 60,
        require_signed_answers: bool | None = None,
        builder_public_key: str | bytes | None = None,
    ) -> None:
        self._builder_key = read_public_key(builder_public_key) if builder_public_key else None
        self._address = Address.parse(url)
        self._payload_secret = payload_secret
        self._retry_timeout = retry_timeout
        self._on_retry = on_retry
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        extra = _checked(headers or {})
        is_https = self._address.url.scheme == "https"
        if require_signed_answers is None:
            require_signed_answers = payload_secret is not None and not is_https
        self._signing_required = require_signed_answers
        self._ssl_context = (ssl_context or tls_context()) if is_https else None
        try:
            self._http = httpx2.AsyncClient(
                headers={
                    "User-Agent": f"function-builder/{__version__}",
                    "Accept-Encoding": "identity",
                    **extra,
                },
                auth=self._address.credentials,
                mounts={
                    f"all://[{host}]" if ":" in host else f"all://{host}": None
                    for host in LOCAL_HOSTS
                },
                # Loading the system's authorities takes 0.15 s, which plain HTTP need not spend.
                verify=self._ssl_context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                # A kept connection may be closed by a proxy just when it is used again, and a
                # build must not be sent twice to find out.
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            )
        except (httpx2.InvalidURL, ImportError, ValueError):
            # Not the error: it may hold a part of the proxy's password.
            raise ValueError(
                "the proxy that the environment names (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) is not"
                " an http or https address"
            ) from None

    @property
    def url(self) -> str:
        """Where requests go, without credentials."""
        return self._address.shown

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; builds that still run are cancelled by their builder."""
        await self._http.aclose()

    async def public_key(self) -> str:
        """Ask for the builder's key for build secrets, in base64, for `seal_secrets`.

        Raises:
            Unreachable: no answer.
            Refused: the builder has no key, or, where `require_signed_answers` holds, the payload
                secret did not sign the answer.
        """
        question = KeyQuestion(
            self._address.url, self._payload_secret, required=self._signing_required
        )
        timeout = httpx2.Timeout(self._read_timeout, connect=self._connect_timeout)
        try:
            response = await self._http.get(question.url, timeout=timeout)
        except httpx2.TransportError as error:
            raise await self._unreachable(error) from error
        return question.key(response.status_code, response.headers, response.content)

    async def build(
        self,
        directory: str | Path | None = None,
        config: BuildConfig | None = None,
        *,
        files: Files | None = None,
        secrets: bytes | None = None,
        **options: Unpack[BuildOptions],
    ) -> BuildResult:
        """Build, and wait for the whole answer; a failed build is a result too.

        Args:
            directory: the build context, of which is sent what its ignore file does not leave out.
            config: what to make of it; or give its fields as ``options``: ``image=…``,
                ``build_args=…``.
            files: the build context in the place of a directory: contents by name.
            secrets: sealed build secrets, as `seal_secrets` makes them.
            options: the fields of `BuildConfig`. In ``contexts`` a `Path` is a directory to send.

        Raises:
            ContextError: the context cannot be sent.
            Unreachable: no answer.
            Refused: an answer that starts no build.
        """
        context = chosen_context(directory, files)
        async with (
            self._packed(context, *build_config(config, options), secrets) as body,
            self._posted(body, "application/json", read_timeout=None) as response,
        ):
            try:
                reply = await response.aread()
            except httpx2.TransportError as error:
                raise await self._unreachable(error) from error
            result = read_whole(response.status_code, response.headers, reply)
            return self._verifier(response).checked(reply, result)

    @asynccontextmanager
    async def stream(
        self,
        directory: str | Path | None = None,
        config: BuildConfig | None = None,
        *,
        files: Files | None = None,
        secrets: bytes | None = None,
        **options: Unpack[BuildOptions],
    ) -> AsyncIterator[BuildStream]:
        """Build, and follow the build; leaving the block early cancels it.

        Arguments and errors are those of `build`.
        """
        context = chosen_context(directory, files)
        async with (
            self._packed(context, *build_config(config, options), secrets) as body,
            self._posted(body, STREAM_TYPE, read_timeout=self._read_timeout) as response,
        ):
            stream = BuildStream(response, self._verifier(response))
            try:
                yield stream
            finally:
                await stream.aclose()

    @asynccontextmanager
    async def _packed(
        self,
        context: Path | Files,
        config: BuildConfig,
        folders: Mapping[str, Path],
        secrets: bytes | None,
    ) -> AsyncIterator[SignedBody]:
        if secrets is not None:
            await self._check_sealed(secrets)
        abandoned = Event()
        packing = partial(pack, context, config, self._payload_secret, folders=folders)
        try:
            body = await asyncio.to_thread(packing, secrets=secrets, abandoned=abandoned)
        finally:
            abandoned.set()
        with body:
            yield body

    async def _check_sealed(self, secrets: bytes) -> None:
        key = self._builder_key
        if key is None:
            # Without an id there is nothing to compare, and without a proof nothing to trust.
            if not self._signing_required or not await asyncio.to_thread(sealed_for, secrets):
                return
            key = await self.public_key()
        await asyncio.to_thread(check_sealed, secrets, key)

    @asynccontextmanager
    async def _posted(
        self, body: SignedBody, accept: str, *, read_timeout: float | None
    ) -> AsyncIterator[httpx2.Response]:
        """Post the body, again while the builder is busy, until something may have been begun.

        A whole answer comes after the build, in a silence of any length: ``read_timeout`` is None
        then.
        """
        timeouts = httpx2.Timeout(
            self._read_timeout, connect=self._connect_timeout, read=read_timeout
        )
        left, attempt = self._retry_timeout, 0
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
            if delay is None or delay > left:
                raise refused
            if self._on_retry is not None:
                self._on_retry(refused, delay)
            await asyncio.sleep(delay)
            left, attempt = left - delay, attempt + 1

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
            "POST",
            self._address.url,
            content=_chunks(body.file),
            headers=headers,
            timeout=timeouts,
        )
        try:
            return await self._http.send(request, stream=True)
        except httpx2.TransportError as error:
            raise await self._unreachable(error) from error

    def _verifier(self, response: httpx2.Response) -> Verifier:
        sent = response.request.headers
        signature = None
        if self._payload_secret is not None:
            signature = build_answer(
                self._payload_secret, sent[SIGNATURE_HEADER], sent[TIMESTAMP_HEADER]
            )
        return Verifier(signature, required=self._signing_required)

    async def _refused(self, response: httpx2.Response) -> Refused:
        try:
            body = await response.aread()
        except httpx2.TransportError:
            body = b""
        return read_refusal(response.status_code, response.headers, body)

    async def _unreachable(self, error: httpx2.TransportError) -> Exception:
        return await explain(error, self._address, self._ssl_context, self._connect_timeout)


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            # Not its value, which may be a password.
            raise ValueError(f"a header {name!r} cannot be sent: name or value is malformed")
    return headers


async def _chunks(file: IO[bytes]) -> AsyncGenerator[bytes]:
    """The whole file, from its start at every attempt."""
    await asyncio.to_thread(file.seek, 0)
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk
