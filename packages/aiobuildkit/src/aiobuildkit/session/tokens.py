"""Registry tokens: when BuildKit asks here for one, and the requests for it.

The caller provides the HTTP client: `Send` makes one HTTP request.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeAlias

from aiobuildkit.errors import RPCError, StatusCode
from aiobuildkit.session.token_messages import (
    Credentials,
    HTTPRequest,
    HTTPResponse,
    Refused,
    Token,
    TokenRequest,
    check_realm,
    get_request,
    post_request,
    read_answer,
)

if TYPE_CHECKING:
    from nacl.signing import SigningKey

__all__ = ["Send", "Tokens"]

UNREACHABLE_SECONDS: Final = 3600.0
"""Seconds for which BuildKit fetches a host's tokens, if its token service was unreachable."""

_PAUSES: Final = (0.5, 1.0, 2.0)
"""Seconds before each retry after a temporary error of the service."""

_LONGEST_PAUSE: Final = 5.0
_TEMPORARY: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses after which the same request is sent again."""

Send: TypeAlias = Callable[[HTTPRequest], Awaitable[HTTPResponse]]
"""Makes one HTTP request, with a timeout; raises OSError without an answer.

It must not follow a redirect of a POST, because the body contains the password.
"""


class Tokens:
    """Fetches tokens, so that BuildKit gets these instead of passwords; shared by sessions.

    Args:
        send: makes an HTTP request; None: only registry tokens are used.
        fetch_timeout: seconds for one token, all requests together. BuildKit waits 60 s for it
            (`session/auth/auth.go`).
    """

    def __init__(self, send: Send | None = None, *, fetch_timeout: float = 40) -> None:
        self._send = send
        self._fetch_timeout = fetch_timeout
        self._seed = os.urandom(32)
        self._unreachable: dict[str, float] = {}

    def serves(self, host: str, credentials: Credentials | None) -> bool:
        """Whether BuildKit should ask here for tokens; otherwise it asks for credentials.

        It should not for a registry without credentials: there is no password to protect, and an
        untrusted registry would choose the address that is asked for a token.
        """
        if credentials is None:
            return False
        if credentials.registry_token:
            return True
        if self._send is None or not credentials.secret:
            return False
        return self._unreachable.get(host, 0.0) < time.monotonic()

    def leave(self, host: str) -> None:
        """Let BuildKit fetch a host's tokens for a time, because we cannot reach its service."""
        self._unreachable[host] = time.monotonic() + UNREACHABLE_SECONDS

    def authority(self, host: str, salt: bytes, credentials: Credentials) -> SigningKey:
        """The key of sessions that may share a host's tokens in BuildKit.

        Other credentials give another key, so that a token is not used after a password rotation.
        """
        from nacl.signing import SigningKey  # noqa: PLC0415 (only builds with tokens need it)

        words = (credentials.username, credentials.secret, credentials.registry_token)
        parts = [salt, *(word.encode() for word in (host, *words))]
        sized = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return SigningKey(hmac.digest(self._seed, sized, "sha256"))

    async def fetch(self, request: TokenRequest, credentials: Credentials | None) -> Token:
        """Get a token from the service.

        Tokens are not cached here. BuildKit caches them, for pulls of all sessions with one
        authority, and asks again if a registry no longer accepts one.

        Args:
            request: BuildKit's request.
            credentials: of the registry; None: anonymous.

        Raises:
            RPCError: the service refuses, or its answer has no token; the text contains no secret.
            OSError: the service did not answer.
        """
        if credentials is not None and credentials.registry_token:
            return Token(credentials.registry_token)
        if self._send is None:
            raise RPCError(StatusCode.UNIMPLEMENTED, "no token service is asked from here")
        check_realm(request)
        async with asyncio.timeout(self._fetch_timeout):
            return await _fetch(self._send, request, credentials)


async def _fetch(send: Send, request: TokenRequest, credentials: Credentials | None) -> Token:
    """Ask the service: with credentials by POST (OAuth 2), or by GET if POST is unsupported."""
    if credentials is None or not credentials.secret:
        return await _ask(send, get_request(request, None), None)
    try:
        return await _ask(send, post_request(request, credentials), credentials)
    except Refused as refused:
        if not _get_may_serve(refused.status, credentials):
            raise
    return await _ask(send, get_request(request, credentials), credentials)


def _get_may_serve(status: int, credentials: Credentials) -> bool:
    """Whether a service with this answer to a POST may support GET.

    Google answers 404, JFrog 401, others 405 or an HTML page, or they fail. An identity token only
    works with POST, except JFrog's: a GET with it may be treated as anonymous.
    """
    return bool(credentials.username) or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)


async def _ask(send: Send, request: HTTPRequest, credentials: Credentials | None) -> Token:
    return read_answer(request, await _patiently(send, request), credentials)


async def _patiently(send: Send, request: HTTPRequest) -> HTTPResponse:
    for pause in _PAUSES:
        try:
            response = await send(request)
        except TimeoutError:
            raise
        except OSError:
            # Usually a reset. An unreachable service also fails the second time.
            await asyncio.sleep(_PAUSES[0])
            return await send(request)
        if response.status not in _TEMPORARY:
            return response
        asked = pause if response.retry_after is None else response.retry_after
        await asyncio.sleep(min(asked, _LONGEST_PAUSE))
    return await send(request)
