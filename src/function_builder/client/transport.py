"""Requests to one builder: signed, retried while it is busy, with readable errors."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Container, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from function_builder import __version__
from function_builder.client.address import Address
from function_builder.client.answers import read_refusal, retry_delay
from function_builder.client.errors import ClientError, Refused, Unreachable
from function_builder.client.request import SignedBody
from function_builder.client.runtime import (
    Answer,
    BrokenExchange,
    ConnectionLost,
    NetworkSettings,
    Request,
    Runtime,
)
from function_builder.client.verifier import Verifier
from function_builder.contract.answer_signature import build_answer
from function_builder.contract.signature import SIGNATURE_HEADER
from function_builder.contract.timestamp import TIMESTAMP_HEADER, stamp

if TYPE_CHECKING:
    import ssl

_BUILD_PATH: Final = "/build"
_CHUNK: Final = 1024 * 1024
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.1
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Transport:
    """Sends the requests of `AsyncClient` and `BuildHandle`, which have the same arguments.

    Attributes:
        address: where the builder listens.
        runtime: how it waits.
        payload_secret: what signs requests, if anything does.
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
        runtime: Runtime,
    ) -> None:
        self.address = Address.parse(url)
        self.runtime = runtime
        self.payload_secret = payload_secret
        self.retry_timeout = retry_timeout
        self.on_retry = on_retry
        self._on_upload = on_upload
        self._connect_timeout = connect_timeout
        self._headers = _checked(headers)
        is_https = self.address.scheme == "https"
        if require_signed_answers is None:
            require_signed_answers = payload_secret is not None and not is_https
        self.signing_required = require_signed_answers
        self._ssl_context = (ssl_context or _tls_context()) if is_https else None
        self._network = runtime.network(
            NetworkSettings(self._ssl_context, connect_timeout, read_timeout)
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._network.close()

    def target(self, path: str, params: Mapping[str, str] | None = None) -> str:
        """The path and the query of another path of the builder, beside that of builds."""
        return self.address.target(self._prefix + path, params)

    @property
    def _prefix(self) -> str:
        """The path under which a proxy offers the builder; usually none."""
        return self.address.path.rstrip("/").removesuffix(_BUILD_PATH)

    @asynccontextmanager
    async def posted(
        self,
        body: SignedBody,
        headers: Mapping[str, str],
        *,
        accepted: Container[int] = (200, 500),
        limited: bool = True,
    ) -> AsyncIterator[Answer]:
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

        target = self.address.target(self.address.path)

        def request() -> Request:
            # Each attempt has its own timestamp: a builder may take a request once.
            proof = {}
            if body.signature is not None and self.payload_secret is not None:
                stamped = stamp(self.payload_secret, body.signature, time.time())
                proof = {SIGNATURE_HEADER: body.signature, TIMESTAMP_HEADER: stamped}
            return Request(
                "POST",
                self.address.origin + target,
                self._all_headers({**sent, **proof}),
                body=_parts(body),
                on_part=self._counting(body.size),
                limited=limited,
            )

        async with self._answered(request, accepted) as response:
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
    ) -> AsyncIterator[Answer]:
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
        target = self.target(path, params)
        # A proxy that offers the builder under a prefix strips it: the builder sees the rest.
        seen = target.removeprefix(self._prefix)
        bearer = token if self.payload_secret is None else None

        def request() -> Request:
            proof = {"Authorization": f"Bearer {bearer}"} if bearer else {}
            if self.payload_secret is not None:
                from function_builder.contract.reads import sign_read

                proof = sign_read(self.payload_secret, method, seen, time.time())
            own = self._all_headers({**(headers or {}), **proof}, credentials=not bearer)
            return Request(method, self.address.origin + target, own)

        async with self._answered(request, range(200, 300)) as response:
            yield response

    def _all_headers(
        self, own: Mapping[str, str], *, credentials: bool = True
    ) -> Mapping[str, str]:
        """The headers of one request with those of each request; the request's own win."""
        user = self.address.credentials
        if credentials and user is not None:
            basic = b64encode(":".join(user).encode()).decode()
            own = {**own, "Authorization": f"Basic {basic}"}
        taken = {name.lower() for name in own}
        every = {
            "User-Agent": f"function-builder/{__version__}",
            "Accept-Encoding": "identity",
            **self._headers,
        }
        return {**{n: value for n, value in every.items() if n.lower() not in taken}, **own}

    def _counting(self, total: int) -> Callable[[int], None] | None:
        """What tells `on_upload` of each part of a body."""
        if (on_upload := self._on_upload) is None:
            return None
        sent = 0

        def on_part(size: int) -> None:
            nonlocal sent
            sent += size
            on_upload(sent, total)

        return on_part

    async def read(self, response: Answer) -> bytes:
        """The answer's body.

        Raises:
            Unreachable: the answer broke off.
        """
        try:
            return await response.aread()
        except BrokenExchange as error:
            raise await self.unreachable(error) from error

    async def proven(self, response: Answer) -> bytes:
        """The answer's body, one JSON object, if a builder with the payload secret gave it.

        Raises:
            Unreachable: the answer broke off.
            Refused: its signature is wrong, or absent where one is required.
        """
        body = await self.read(response)
        if reason := self.verifier(response).doubt(body):
            raise Refused(response.status_code, reason, from_builder=False)
        return body

    def verifier(self, response: Answer) -> Verifier:
        """What checks the signature of this answer."""
        sent = response.request.headers
        signature = None
        if self.payload_secret is not None:
            signature = build_answer(
                self.payload_secret, sent[SIGNATURE_HEADER], sent[TIMESTAMP_HEADER]
            )
        return Verifier(signature, required=self.signing_required)

    async def unreachable(self, error: BrokenExchange) -> Unreachable:
        """Say why no answer came."""
        # Loaded here, because most requests are answered.
        from function_builder.client.failures import explain

        tls = self._ssl_context
        explained = await self.runtime.call(
            partial(explain, error, self.address, tls, self._connect_timeout)
        )
        explained.lost = isinstance(error, ConnectionLost)
        return explained

    @asynccontextmanager
    async def _answered(
        self, request: Callable[[], Request], accepted: Container[int]
    ) -> AsyncIterator[Answer]:
        left, attempt = self.retry_timeout, 0
        while True:
            try:
                response = await self._network.send(request())
            except BrokenExchange as error:
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
        await self.runtime.sleep(seconds)


def _tls_context() -> ssl.SSLContext:
    # Loaded here, because http needs none of it.
    from function_builder.client.tls import tls_context

    return tls_context()


def _parts(body: SignedBody) -> Iterator[bytes]:
    """The whole body, from its start at every attempt."""
    body.file.seek(0)
    while part := body.file.read(_CHUNK):
        yield part


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            # Without its value, which may be a password.
            raise ValueError(f"a header {name!r} cannot be sent: name or value is malformed")
    return headers


async def _body_if_any(response: Answer) -> bytes:
    try:
        return await response.aread()
    except BrokenExchange:
        return b""
