"""Requests to one builder: signed, retried while it is busy, with readable errors."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Mapping
from contextlib import asynccontextmanager
from typing import Final

import httpx2

from function_builder import __version__
from function_builder.client.address import LOCAL_HOSTS, Address
from function_builder.client.answers import read_refusal, retry_delay
from function_builder.client.errors import ClientError, Refused, Unreachable
from function_builder.client.failures import BROKEN, explain
from function_builder.client.request import SignedBody
from function_builder.client.tls import tls_context
from function_builder.client.verifier import Verifier
from function_builder.contract.answer_signature import build_answer
from function_builder.contract.reads import sign_read
from function_builder.contract.signature import SIGNATURE_HEADER
from function_builder.contract.timestamp import TIMESTAMP_HEADER, stamp

_BUILD_PATH: Final = "/build"
_CHUNK: Final = 1024 * 1024
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.1
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Transport:
    """Sends the requests of `AsyncClient` and `BuildHandle`, which have the same arguments.

    Attributes:
        address: where the builder listens.
        payload_secret: signs requests; None: they are not signed.
        signing_required: whether an answer without a signature is refused.
        retry_timeout: seconds, over all attempts, to spend waiting for the builder.
        on_retry: called before each wait.
        on_upload: called while a body is sent, with the bytes that are sent and all bytes.
    """

    def __init__(
        self,
        url: str,
        *,
        payload_secret: bytes | None,
        headers: Mapping[str, str],
        ssl_context: ssl.SSLContext | None,
        retry_timeout: float,
        on_retry: Callable[[ClientError, float], None] | None,
        on_upload: Callable[[int, int], None] | None,
        connect_timeout: float,
        read_timeout: float,
        require_signed_answers: bool | None,
    ) -> None:
        self.address = Address.parse(url)
        self.payload_secret = payload_secret
        self.retry_timeout = retry_timeout
        self.on_retry = on_retry
        self._on_upload = on_upload
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        extra = _checked(headers)
        is_https = self.address.url.scheme == "https"
        if require_signed_answers is None:
            require_signed_answers = payload_secret is not None and not is_https
        self.signing_required = require_signed_answers
        self._ssl_context = (ssl_context or tls_context()) if is_https else None
        try:
            self._http = httpx2.AsyncClient(
                headers={
                    "User-Agent": f"function-builder/{__version__}",
                    "Accept-Encoding": "identity",
                    **extra,
                },
                mounts={
                    f"all://[{host}]" if ":" in host else f"all://{host}": None
                    for host in LOCAL_HOSTS
                },
                # Only for https, because loading the system's authorities takes 0.15 s.
                verify=self._ssl_context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                # A kept connection may be closed by a proxy just when it is used again, and a
                # build must not be sent twice to find out.
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            )
        except (httpx2.InvalidURL, ImportError, ValueError):
            # Without the error, which may contain a part of the proxy's password.
            raise ValueError(
                "the proxy that the environment names (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) is not"
                " an http or https address"
            ) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    def url(self, path: str, params: Mapping[str, str] | None = None) -> httpx2.URL:
        """The address of another path of the builder, beside that of builds."""
        url = self.address.url.copy_with(path=self._prefix + path)
        return url.copy_merge_params(dict(params)) if params else url

    @property
    def _prefix(self) -> str:
        """The path under which a proxy offers the builder; usually none."""
        return self.address.url.path.rstrip("/").removesuffix(_BUILD_PATH)

    @asynccontextmanager
    async def posted(
        self,
        body: SignedBody,
        headers: Mapping[str, str],
        *,
        accepted: Container[int] = (200, 500),
        limited: bool = True,
    ) -> AsyncIterator[httpx2.Response]:
        """Post a body to build, again while the builder is busy, until it is accepted.

        Args:
            body: what to build.
            headers: beside those of each build.
            accepted: the statuses whose answer is returned. Others are raised.
            limited: whether the request ends after `read_timeout` seconds without a byte. A whole
                answer arrives only after the build.

        Raises:
            Unreachable: no answer.
            Refused: an answer with another status.
        """
        sent = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(body.size),
            **headers,
        }

        def request() -> httpx2.Request:
            # Each attempt has its own timestamp: a builder may take a request once.
            proof = {}
            if body.signature is not None and self.payload_secret is not None:
                stamped = stamp(self.payload_secret, body.signature, time.time())
                proof = {SIGNATURE_HEADER: body.signature, TIMESTAMP_HEADER: stamped}
            return self._http.build_request(
                "POST",
                self.address.url,
                content=self._chunks(body),
                headers={**sent, **proof},
                timeout=self._timeouts(limited=limited),
            )

        async with self._answered(request, accepted, self.address.credentials) as response:
            yield response

    @asynccontextmanager
    async def asked(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request without a body; its answer has a status from 200 to 299.

        Args:
            method: such as GET.
            path: on the builder.
            params: the query.
            headers: of this request.
            token: proves the request where there is no payload secret.

        Raises:
            Unreachable: no answer.
            Refused: an answer with another status.
        """
        url = self.url(path, params)
        # A proxy with a path prefix removes it, so the builder verifies the rest.
        target = url.raw_path.decode("ascii").removeprefix(self._prefix)
        bearer = token if self.payload_secret is None else None

        def request() -> httpx2.Request:
            proof = {"Authorization": f"Bearer {bearer}"} if bearer else {}
            if self.payload_secret is not None:
                proof = sign_read(self.payload_secret, method, target, time.time())
            return self._http.build_request(
                method, url, headers={**(headers or {}), **proof}, timeout=self._timeouts()
            )

        credentials = None if bearer else self.address.credentials
        async with self._answered(request, range(200, 300), credentials) as response:
            yield response

    async def _chunks(self, body: SignedBody) -> AsyncGenerator[bytes]:
        """The whole body, from its start at every attempt."""
        await asyncio.to_thread(body.file.seek, 0)
        sent = 0
        while chunk := await asyncio.to_thread(body.file.read, _CHUNK):
            yield chunk
            sent += len(chunk)
            if self._on_upload is not None:
                self._on_upload(sent, body.size)

    async def read(self, response: httpx2.Response) -> bytes:
        """The answer's body.

        Raises:
            Unreachable: the answer broke off.
        """
        try:
            return await response.aread()
        except BROKEN as error:
            raise await self.unreachable(error) from error

    async def proven(self, response: httpx2.Response) -> bytes:
        """The answer's body, one JSON object, if a builder with the payload secret gave it.

        Raises:
            Unreachable: the answer broke off.
            Refused: its signature is wrong, or absent where one is required.
        """
        body = await self.read(response)
        if reason := self.verifier(response).doubt(body):
            raise Refused(response.status_code, reason, from_builder=False)
        return body

    def verifier(self, response: httpx2.Response) -> Verifier:
        """The verifier of this answer's signature."""
        sent = response.request.headers
        signature = None
        if self.payload_secret is not None:
            signature = build_answer(
                self.payload_secret, sent[SIGNATURE_HEADER], sent[TIMESTAMP_HEADER]
            )
        return Verifier(signature, required=self.signing_required)

    async def unreachable(self, error: httpx2.TransportError | ssl.SSLError) -> Unreachable:
        """The error for a request without an answer."""
        explained = await explain(error, self.address, self._ssl_context, self._connect_timeout)
        explained.lost = isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError) and (
            not isinstance(error, httpx2.ConnectError)
        )
        return explained

    @asynccontextmanager
    async def _answered(
        self,
        request: Callable[[], httpx2.Request],
        accepted: Container[int],
        credentials: tuple[str, str] | None,
    ) -> AsyncIterator[httpx2.Response]:
        left, attempt = self.retry_timeout, 0
        while True:
            try:
                response = await self._http.send(request(), stream=True, auth=credentials)
            except BROKEN as error:
                raise await self.unreachable(error) from error
            try:
                if response.status_code in accepted:
                    yield response
                    return
                refused = read_refusal(
                    response.status_code, response.headers, await _body_if_any(response)
                )
            finally:
                await response.aclose()
            delay = retry_delay(refused, attempt)
            if delay is None or delay > left:
                raise refused
            await self.pause(refused, delay)
            left, attempt = left - delay, attempt + 1

    async def pause(self, error: ClientError, seconds: float) -> None:
        """Wait before a request is sent again because of an error."""
        if self.on_retry is not None:
            self.on_retry(error, seconds)
        await asyncio.sleep(seconds)

    def _timeouts(self, *, limited: bool = True) -> httpx2.Timeout:
        return httpx2.Timeout(
            self._read_timeout,
            connect=self._connect_timeout,
            read=self._read_timeout if limited else None,
        )


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            # Without its value, which may be a password.
            raise ValueError(f"a header {name!r} cannot be sent: name or value is malformed")
    return headers


async def _body_if_any(response: httpx2.Response) -> bytes:
    try:
        return await response.aread()
    except BROKEN:
        return b""
