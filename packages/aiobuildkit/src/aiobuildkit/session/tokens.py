"""Registry tokens: requests to token services, and their answers.

The caller provides the HTTP client: `Send` makes one HTTP request. Sources: distribution,
`docs/content/spec/auth/` (token, oauth, scope); BuildKit, `session/auth/authprovider`, which
does the same for `buildctl`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit, urlunsplit

from nacl.signing import SigningKey

from aiobuildkit.errors import RPCError, StatusCode

__all__ = ["Credentials", "HTTPRequest", "HTTPResponse", "Send", "TokenRequest", "Tokens"]

UNREACHABLE_SECONDS: Final = 3600.0
"""Seconds for which BuildKit fetches a host's tokens, if its token service was unreachable."""

MAX_TOKEN_BYTES: Final = 64 * 1024
"""It becomes a header of BuildKit's."""

_PAUSES: Final = (0.5, 1.0, 2.0)
"""Seconds before each retry after a temporary error of the service."""

_LONGEST_PAUSE: Final = 5.0
_BAD_MOMENTS: Final = frozenset({429, 500, 502, 503, 504})
_DEFAULT_LIFETIME: Final = 60
_SHORTEST_LIFETIME: Final = 10
_LONGEST_LIFETIME: Final = 24 * 3600
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of a registry.

    Attributes:
        username: with an empty one, `secret` is an identity token (OAuth's refresh token).
        secret: the password.
        registry_token: a bearer token for the registry itself; it replaces the other two.
    """

    username: str
    secret: str = field(repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A registry's challenge, with `scopes` such as `repository:a/b:pull,push`."""

    host: str
    realm: str
    service: str
    scopes: tuple[str, ...]
    client_id: str = "buildkit-client"


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, and its lifetime in seconds."""

    value: str = field(repr=False)
    expires_in: int = _DEFAULT_LIFETIME


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """A request to a token service; headers and body contain secrets."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    """A token service's answer. A body that is larger than a token may be cut."""

    status: int
    body: bytes = field(default=b"", repr=False)
    retry_after: float | None = None


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
        _check_realm(request)
        async with asyncio.timeout(self._fetch_timeout):
            return await _fetch(self._send, request, credentials)


async def _fetch(send: Send, request: TokenRequest, credentials: Credentials | None) -> Token:
    """Ask the service: with credentials by POST (OAuth 2), or by GET if POST is unsupported."""
    if credentials is None or not credentials.secret:
        return await _ask(send, _get(request, None), None)
    try:
        return await _ask(send, _post(request, credentials), credentials)
    except _Refused as refused:
        if not _get_may_serve(refused.status, credentials):
            raise
    return await _ask(send, _get(request, credentials), credentials)


class _Refused(RPCError):
    """An answer without a token."""

    def __init__(self, status: int, message: str) -> None:
        # With another code BuildKit drops its own text, such as the name of the pushed image.
        super().__init__(StatusCode.UNKNOWN, message)
        self.status = status


def _get_may_serve(status: int, credentials: Credentials) -> bool:
    """Whether a service with this answer to a POST may support GET.

    Google answers 404, JFrog 401, others 405 or an HTML page, or they fail. An identity token only
    works with POST, except JFrog's: a GET with it may be treated as anonymous.
    """
    return bool(credentials.username) or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)


def _check_realm(request: TokenRequest) -> None:
    try:
        realm = urlsplit(request.realm)
        usable = realm.scheme in ("http", "https") and bool(realm.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise RPCError(
            StatusCode.FAILED_PRECONDITION,
            f"the registry {request.host} names a token service that is not an http(s) URL",
        )


def _post(request: TokenRequest, credentials: Credentials) -> HTTPRequest:
    form = {"service": request.service, "client_id": request.client_id}
    if request.scopes:
        form["scope"] = " ".join(request.scopes)
    if credentials.username:
        form |= {"grant_type": "password", "username": credentials.username}
        form["password"] = credentials.secret
    else:
        form |= {"grant_type": "refresh_token", "refresh_token": credentials.secret}
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    return HTTPRequest("POST", request.realm, headers, urlencode(form).encode())


def _get(request: TokenRequest, credentials: Credentials | None) -> HTTPRequest:
    realm = urlsplit(request.realm)
    query = parse_qsl(realm.query, keep_blank_values=True)
    if request.service:
        query.append(("service", request.service))
    query += [("scope", scope) for scope in request.scopes]
    headers = {}
    if credentials is not None:
        pair = f"{credentials.username}:{credentials.secret}".encode()
        headers["Authorization"] = f"Basic {b64encode(pair).decode()}"
    return HTTPRequest("GET", urlunsplit(realm._replace(query=urlencode(query))), headers)


async def _ask(send: Send, request: HTTPRequest, credentials: Credentials | None) -> Token:
    response = await _patiently(send, request)
    if 200 <= response.status < 300:
        token = _read(response.body)
        if token is not None:
            return token
        what = "no token in the answer"
    else:
        what = "unexpected status"
    realm = urlsplit(request.url)
    # Without user info and query, which the registry may have added.
    where = f"{realm.scheme}://{realm.netloc.rpartition('@')[2]}{realm.path}"
    text = f"failed to fetch oauth token: {what} from {request.method} request to {where}"
    raise _Refused(response.status, f"{text}: {_words(response, credentials)}")


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
        if response.status not in _BAD_MOMENTS:
            return response
        asked = pause if response.retry_after is None else response.retry_after
        await asyncio.sleep(min(asked, _LONGEST_PAUSE))
    return await send(request)


def _read(body: bytes) -> Token | None:
    document = _object(body)
    token = document.get("access_token") or document.get("token")
    if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN_BYTES:
        return None
    if not (token.isascii() and token.isprintable()):
        return None
    return Token(token, _lifetime(document.get("expires_in"), document.get("issued_at")))


def _lifetime(expires_in: object, issued_at: object) -> int:
    """Seconds for which BuildKit may keep a token.

    BuildKit gets no `issued_at`, because it keeps a token forever if the token has already
    expired, which can happen if clocks differ (`util/resolver/authorizer.go`).
    """
    try:
        seconds = int(expires_in)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        seconds = 0
    lifetime: int = seconds if seconds > 0 else _DEFAULT_LIFETIME
    try:
        issued = datetime.fromisoformat(str(issued_at)).timestamp()
        lifetime -= max(0, int(time.time() - issued))
    except (ValueError, OverflowError):
        pass
    return min(max(lifetime, _SHORTEST_LIFETIME), _LONGEST_LIFETIME)


def _object(body: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _words(response: HTTPResponse, credentials: Credentials | None) -> str:
    """The status and the service's message, in the form of OAuth's or the registry's errors."""
    try:
        status = f"{response.status} {HTTPStatus(response.status).phrase}"
    except ValueError:
        status = str(response.status)
    document = _object(response.body)
    errors = document.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else document
    said = []
    if isinstance(first, dict):
        keys = ("error", "error_description", "code", "message", "details")
        said = [word for key in keys if isinstance(word := first.get(key), str)]
        if isinstance(code := first.get("code"), str):
            # docker's form of such codes: UNAUTHORIZED.
            said[said.index(code)] = code.lower().replace("_", " ")
    text = " ".join(": ".join(said).split())
    for secret in _forms(credentials):
        text = text.replace(secret, "***")
    text = "".join(letter for letter in text if letter.isprintable())[:_SHOWN]
    return f"{status}: {text}" if text else status


def _forms(credentials: Credentials | None) -> Sequence[str]:
    """The forms of the secret that the service was sent, and might repeat."""
    if credentials is None or not credentials.secret:
        return ()
    pair = f"{credentials.username}:{credentials.secret}".encode()
    return b64encode(pair).decode(), quote_plus(credentials.secret), credentials.secret
