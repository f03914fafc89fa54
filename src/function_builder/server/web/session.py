"""Which browser may see the web pages: the cookie that its sign-in link sets."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import Refusal
from function_builder.contract.web import WebToken, parse_web_token
from function_builder.server import keys
from function_builder.server.service import Service

_COOKIE: Final = "function-builder"


class SignedOut(Exception):
    """The browser has to sign in first."""


def require(request: Request, service: Service) -> str:
    """The tenant whose builds a browser may see; it changes nothing on behalf of another site.

    Raises:
        SignedOut: it has no valid cookie.
        Refusal: 403, a page of another site sent the form; 503, the payload secret cannot be read.
    """
    tenant = DEFAULT_TENANT
    if not service.settings.disable_hmac:
        token = _proven(request.cookies.get(_COOKIE, ""), service)
        if token is None:
            raise SignedOut
        tenant = token.tenant
    if request.method not in ("GET", "HEAD") and not _same_origin(request):
        raise Refusal(403, "another site sent this form: open the page here, and try again")
    return tenant


def sign_in(response: Response, request: Request, service: Service, text: str) -> bool:
    """Set the cookie of a valid token; returns whether it is valid.

    Raises:
        Refusal: 503, the payload secret cannot be read.
    """
    token = _proven(text, service)
    if token is None:
        return False
    response.set_cookie(
        _COOKIE,
        token.text,
        max_age=int(token.expires - time.time()),
        # Without one a browser uses the directory of these pages, also behind a proxy's prefix.
        path=None,
        secure=_is_https(request),
        httponly=True,
        samesite="lax",
    )
    return True


def _proven(text: str, service: Service) -> WebToken | None:
    token = parse_web_token(text)
    if token is None:
        return None
    secrets: Sequence[bytes]
    if service.tenants is None:
        secrets = keys.signing_secrets(service.settings) if token.tenant == DEFAULT_TENANT else ()
    else:
        claim = service.tenants.named(token.tenant)
        secrets = () if claim is None else claim.secrets
    # A tenant that does not exist takes the time of one that does.
    return token if token.valid(secrets or [os.urandom(32)], time.time()) else None


def sign_out(response: Response) -> None:
    """Remove the cookie."""
    response.set_cookie(_COOKIE, "", max_age=0, path=None, httponly=True, samesite="lax")


def _is_https(request: Request) -> bool:
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
