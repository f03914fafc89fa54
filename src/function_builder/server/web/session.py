"""The session of a browser on the web pages, in the cookie that its sign-in sets.

The cookie holds the token of a link, or the session that a bearer token was exchanged for. It never
holds a bearer token. A sign-in always sets a new cookie. So an attacker who has set a
cookie before it does not share the session. With a queue, a sign-out ends it on all builders.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import time
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import structlog
from starlette.requests import Request
from starlette.responses import Response

from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import Refusal
from function_builder.contract.tenancy import ALL_SCOPES, Scope
from function_builder.contract.web import (
    SESSION_SECONDS,
    WebToken,
    parse_web_session,
    parse_web_token,
    web_session,
)
from function_builder.queue.port import QueueUnavailable
from function_builder.server import keys
from function_builder.server.service import Service
from function_builder.tenants.tenant import Proven

_log = structlog.get_logger(__name__)

_COOKIE: Final = "function-builder"

CHECK_SECONDS: Final = 5.0
"""Seconds between two checks that the session of an open stream is still valid."""


class SignedOut(Exception):
    """The browser has to sign in first."""


class Visitor(NamedTuple):
    """A browser that is signed in.

    Attributes:
        tenant: whose builds it may see.
        scopes: what it may do.
        credential: the id of the credential that signed it in, for the audit log.
        expires: the end of its session, in seconds since the epoch.
        is_operator: whether it sees what belongs to no tenant, such as BuildKits.
    """

    tenant: str
    scopes: frozenset[Scope]
    credential: str
    expires: float = math.inf
    is_operator: bool = False

    def allow(self, scope: Scope) -> None:
        """Check what it may do.

        Raises:
            Refusal: 403.
        """
        if scope not in self.scopes:
            raise Refusal(403, f"you signed in with a token that does not have the scope {scope}")


async def require(request: Request, service: Service) -> Visitor:
    """The browser of a request; it changes nothing on behalf of another site.

    Raises:
        SignedOut: it has no valid cookie.
        Refusal: 403, a page of another site sent the form; 503, the payload secret cannot be read.
    """
    visitor = await _visitor(request, service)
    if visitor is None:
        raise SignedOut
    if request.method not in ("GET", "HEAD"):
        require_same_origin(request)
    return visitor


class Streams:
    """The log streams of signed-in browsers. None outlives its session.

    Args:
        service: what the endpoints share.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open: dict[str, set[asyncio.Event]] = {}

    def end(self, request: Request) -> None:
        """End the streams of a browser that signs out; other builders' end at their next check."""
        for over in self._open.get(request.cookies.get(_COOKIE, ""), ()):
            over.set()

    async def until_over(self, request: Request) -> None:
        """Wait for the end of a request's session.

        It ends at its time, when the browser signs out, or when the token or the secret that it
        is derived from is replaced.
        """
        cookie, over = request.cookies.get(_COOKIE, ""), asyncio.Event()
        self._open.setdefault(cookie, set()).add(over)
        try:
            while not over.is_set() and (visitor := await _visitor(request, self._service)):
                left = max(0.0, visitor.expires - time.time())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(CHECK_SECONDS, left)):
                        await over.wait()
        except Refusal as refusal:
            # The page asks again.
            _log.info("a stream was ended", why=refusal.reason)
        finally:
            self._open[cookie].discard(over)
            if not self._open[cookie]:
                del self._open[cookie]


def require_same_origin(request: Request) -> None:
    """Check that a page of this origin sent a form.

    Raises:
        Refusal: 403.
    """
    if not _same_origin(request):
        raise Refusal(403, "another site sent this form: open the page here, and try again")


def sign_in(response: Response, request: Request, service: Service, text: str) -> bool:
    """Set the cookie of a valid link's token; returns whether it is valid.

    Raises:
        Refusal: 503, the payload secret cannot be read.
    """
    token = _proven(text, service)
    if token is None:
        return False
    # The number makes browsers with one link different, so that a sign-out ends one of them.
    _set_cookie(response, request, f"{token.text}.{_number()}", token.expires)
    return True


def begin(
    response: Response,
    request: Request,
    service: Service,
    proven: Proven,
    until: float = math.inf,
) -> None:
    """Set the cookie of a new session.

    Args:
        response: gets the cookie.
        request: of the browser.
        service: what the endpoints share.
        proven: what the browser's token proves.
        until: the latest end of the session, in seconds since the epoch.

    Raises:
        Refusal: 403, the token may not read; 503, the payload secret cannot be read.
    """
    Visitor(proven.tenant, proven.scopes, "").allow(Scope.READ)
    expires = int(min(time.time() + SESSION_SECONDS, until))
    secret = keys.signing_secrets(service.settings)[0]
    text = web_session(secret, proven.tenant, expires, proven.credentials, _number())
    _set_cookie(response, request, text, expires)


def _number() -> str:
    return secrets.token_hex(8)


def _set_cookie(response: Response, request: Request, text: str, expires: int) -> None:
    response.set_cookie(
        _COOKIE,
        text,
        max_age=int(expires - time.time()),
        # Without one a browser uses the directory of these pages, also behind a proxy's prefix.
        path=None,
        secure=is_https(request),
        httponly=True,
        samesite="lax",
    )


async def _visitor(request: Request, service: Service) -> Visitor | None:
    """The browser of a request; None: it is not signed in, or has signed out.

    Raises:
        Refusal: 503, the payload secret cannot be read.
    """
    if service.settings.disable_hmac:
        return Visitor(DEFAULT_TENANT, ALL_SCOPES, "web-token", is_operator=True)
    cookie = request.cookies.get(_COOKIE, "")
    visitor = _of_link(cookie, service) or _of_session(cookie, service)
    return None if visitor is None or await _has_ended(cookie, service) else visitor


async def _has_ended(cookie: str, service: Service) -> bool:
    if service.sign_outs is None:
        return False
    try:
        return await service.sign_outs.contain(cookie)
    except QueueUnavailable:
        # Builds cannot be read now either. The operator's other pages stay.
        return False


def _of_link(cookie: str, service: Service) -> Visitor | None:
    token = _proven(cookie.partition(".")[0], service)
    if token is None:
        return None
    is_operator = token.tenant == DEFAULT_TENANT
    return Visitor(token.tenant, ALL_SCOPES, "web-token", token.expires, is_operator)


def _of_session(text: str, service: Service) -> Visitor | None:
    found = parse_web_session(text)
    if found is None or service.tenants is None:
        return None
    if not found.valid(keys.signing_secrets(service.settings), time.time()):
        return None
    scopes = service.tenants.scopes(found.tenant, found.credentials)
    credential = f"web-session:{'.'.join(found.credentials)}"
    return Visitor(found.tenant, scopes, credential, found.expires) if scopes else None


def _proven(text: str, service: Service) -> WebToken | None:
    token = parse_web_token(text)
    if token is None:
        return None
    made_by: Sequence[bytes]
    if service.tenants is None:
        made_by = keys.signing_secrets(service.settings) if token.tenant == DEFAULT_TENANT else ()
    else:
        claim = service.tenants.named(token.tenant)
        made_by = () if claim is None else claim.secrets
    # A tenant that does not exist must take the same time.
    return token if token.valid(made_by or [os.urandom(32)], time.time()) else None


async def sign_out(response: Response, request: Request, service: Service) -> None:
    """Remove the cookie, and end its session on all builders."""
    if service.sign_outs is not None:
        try:
            await service.sign_outs.add(request.cookies.get(_COOKIE, ""))
        except QueueUnavailable as error:
            _log.warning("a sign-out is not stored: only its cookie is removed", reason=str(error))
    response.set_cookie(_COOKIE, "", max_age=0, path=None, httponly=True, samesite="lax")


def is_https(request: Request) -> bool:
    """Whether the browser's connection is HTTPS, here or at a proxy."""
    # A client that forges the header only keeps its own cookie off plain HTTP.
    scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
    return scheme.partition(",")[0].strip().lower() == "https"


def _same_origin(request: Request) -> bool:
    """Whether a page of this origin sent a form (Fetch Metadata; RFC 6454 in older browsers)."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == request.headers.get("host", "")
