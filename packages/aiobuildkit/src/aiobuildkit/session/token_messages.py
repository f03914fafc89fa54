"""Messages with a registry's token service, without I/O: requests, and what an answer means.

Sources: distribution, `docs/content/spec/auth/` (token, oauth, scope); BuildKit,
`session/auth/authprovider`, which does the same for `buildctl`.
"""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit, urlunsplit

from aiobuildkit.errors import RPCError, StatusCode

__all__ = [
    "Credentials",
    "HTTPRequest",
    "HTTPResponse",
    "Refused",
    "Token",
    "TokenRequest",
    "check_realm",
    "get_request",
    "post_request",
    "read_answer",
]

MAX_TOKEN_BYTES: Final = 64 * 1024
"""BuildKit sends the token in a header."""

_DEFAULT_LIFETIME: Final = 60
_SHORTEST_LIFETIME: Final = 10
_LONGEST_LIFETIME: Final = 24 * 3600
_SHOWN: Final = 200
"""Characters of a service's message that an error quotes."""


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


class Refused(RPCError):
    """The service answered without a token; the text contains no secret."""

    def __init__(self, status: int, message: str) -> None:
        # With another code BuildKit drops its own text, such as the name of the pushed image.
        super().__init__(StatusCode.UNKNOWN, message)
        self.status = status


def check_realm(request: TokenRequest) -> None:
    """Check the address of the token service.

    Raises:
        RPCError: it is not an http(s) URL.
    """
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


def post_request(request: TokenRequest, credentials: Credentials) -> HTTPRequest:
    """A request as OAuth 2 has it."""
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


def get_request(request: TokenRequest, credentials: Credentials | None) -> HTTPRequest:
    """A request with Basic authentication; anonymous without credentials."""
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


def read_answer(
    request: HTTPRequest, response: HTTPResponse, credentials: Credentials | None
) -> Token:
    """The token in an answer.

    Args:
        request: what was sent.
        response: the answer.
        credentials: those of the request, which the answer might repeat.

    Raises:
        Refused: there is no token.
    """
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
    raise Refused(response.status, f"{text}: {_words(response, credentials)}")


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
