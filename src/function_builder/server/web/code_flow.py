"""Sign-in at an OpenID Connect issuer: the authorization code flow with PKCE (RFC 6749, RFC 7636).

`state`, `nonce` and the code's verifier derive from one random value in a cookie of the browser. So
any replica can complete the flow, but only in the browser that started it. Another site cannot sign
a browser in with a code of its own user. The page after a flow is fixed: no parameter names it.

This module imports PyJWT, so only a builder with `web_oidc_issuer` imports it.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from function_builder.contract.derived import derived_key
from function_builder.contract.errors import Refusal, shown
from function_builder.oidc.fetch import IssuerError, ask, discover
from function_builder.oidc.trust import Issuer, url_fault
from function_builder.server.claims import CurrentTenants
from function_builder.server.web.answers import HEADERS
from function_builder.server.web.session import is_https
from function_builder.settings import Settings
from function_builder.tenants.tenant import Proven

CALLBACK_PATH: Final = "/web/oidc-callback"

FLOW_SECONDS: Final = 600
"""Seconds that a user may take at the issuer."""

MAX_EXCHANGES: Final = 8
"""The most requests to the issuer at a time, because any client can start a flow."""

_FRESH_SECONDS: Final = 600.0
_FLOOR_SECONDS: Final = 30.0
"""Seconds between two requests for the discovery document, if the first has failed."""

_COOKIE: Final = "function-builder-oidc"
_RANDOM_BYTES: Final = 32

_log = structlog.get_logger(__name__)


class CodeFlow:
    """Starts and completes sign-ins at the issuer of `web_oidc_issuer`.

    Args:
        settings: have the issuer, and the client ID there.
        tenants: verify its tokens.
    """

    def __init__(self, settings: Settings, tenants: CurrentTenants) -> None:
        self._settings = settings
        self._tenants = tenants
        self._callback = settings.web_url.rstrip("/") + CALLBACK_PATH
        self._exchanges = asyncio.Semaphore(MAX_EXCHANGES)
        self._lock = asyncio.Lock()
        self._metadata: Mapping[str, Any] = {}
        self._read_again = float("-inf")

    async def begin(self, request: Request) -> Response:
        """Send the browser to the issuer.

        Raises:
            Refusal: 502.
        """
        random = secrets.token_bytes(_RANDOM_BYTES)
        verifier = _text(random, "verifier")
        challenge = hashlib.sha256(verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._settings.web_oidc_client_id,
            "redirect_uri": self._callback,
            "scope": self._settings.web_oidc_scope,
            "state": _text(random, "state"),
            "nonce": _text(random, "nonce"),
            "code_challenge": _base64(challenge),
            "code_challenge_method": "S256",
        }
        endpoint = await self._endpoint("authorization_endpoint")
        joint = "&" if "?" in endpoint else "?"
        response = RedirectResponse(f"{endpoint}{joint}{urlencode(query)}", 303, HEADERS)
        _set_cookie(response, request, random.hex(), FLOW_SECONDS)
        return response

    async def end(self, request: Request) -> Proven:
        """The tenant that the user has proven, when the issuer has sent the browser back.

        Raises:
            Refusal: 400, this browser began no such flow; 401, the token proves no tenant; 403, the
                issuer has refused; 502, the issuer does not answer.
        """
        query, random = request.query_params, _random(request)
        state = query.get("state", "").encode("utf-8", "replace")
        issuer = self._settings.web_oidc_issuer
        if random is None or not hmac.compare_digest(state, _text(random, "state").encode()):
            raise Refusal(
                400, "this browser did not begin this sign-in, or too long ago: try again"
            )
        if query.get("iss", issuer) != issuer:
            raise Refusal(400, "the answer is that of another issuer (RFC 9207)")
        if "code" not in query:
            raise Refusal(403, f"the issuer refused: {shown(query.get('error', 'no code'))}")
        token = await self._exchange(query["code"], _text(random, "verifier"))
        proven = await self._tenants.prove(token)
        self._check(proven.claims, _text(random, "nonce"))
        return proven

    def forget(self, response: Response, request: Request) -> None:
        """Remove the cookie of a flow, which ends with its first answer."""
        _set_cookie(response, request, "", 0)

    async def _exchange(self, code: str, verifier: str) -> str:
        """Exchange a code for its ID token."""
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._callback,
            "code_verifier": verifier,
        }
        endpoint, basic = await self._endpoint("token_endpoint"), None
        if settings.web_oidc_client_secret_file:
            path = Path(settings.web_oidc_client_secret_file)
            try:
                secret = (await asyncio.to_thread(path.read_text)).strip()
            except (OSError, ValueError) as error:
                _log.error("web_oidc_client_secret_file cannot be read", why=str(error))
                raise Refusal(503, "the builder cannot read its client secret") from error
            basic = (quote_plus(settings.web_oidc_client_id), quote_plus(secret))
        else:
            form["client_id"] = settings.web_oidc_client_id
        try:
            async with self._exchanges:
                answer = await ask(self._issuer(), endpoint, form=form, basic=basic)
        except IssuerError as error:
            raise _unavailable(error) from error
        token = answer.get("id_token") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise _unavailable(IssuerError("its answer has no ID token"))
        return token

    def _check(self, claims: Mapping[str, Any], nonce: str) -> None:
        """Check that a verified token belongs to this flow (OpenID Connect Core 1.0, 3.1.3.7)."""
        client, audience = self._settings.web_oidc_client_id, claims.get("aud")
        if (
            claims.get("iss") != self._settings.web_oidc_issuer
            or client not in (audience if isinstance(audience, list) else [audience])
            or claims.get("azp", client) != client
            or not hmac.compare_digest(str(claims.get("nonce")).encode(), nonce.encode())
        ):
            raise Refusal(401, "the issuer's token is not of this sign-in")

    async def _endpoint(self, name: str) -> str:
        """An endpoint of the discovery document.

        Raises:
            Refusal: 502.
        """
        async with self._lock:
            now = time.monotonic()
            if now >= self._read_again:
                self._read_again = now + _FLOOR_SECONDS
                try:
                    self._metadata = await discover(self._issuer())
                    self._read_again = now + _FRESH_SECONDS
                except IssuerError as error:
                    _log.warning("the issuer of web_oidc_issuer does not answer", why=str(error))
        endpoint = str(self._metadata.get(name, ""))
        if url_fault(endpoint.partition("?")[0]):
            raise Refusal(502, "the issuer of the sign-in does not answer: try again later")
        return endpoint

    def _issuer(self) -> Issuer:
        url = self._settings.web_oidc_issuer
        issuer = self._tenants.issuer(url) or Issuer(url)
        # Its endpoints may be on other hosts, which must not get the token for its keys.
        return dataclasses.replace(issuer, token_file=None)


def _unavailable(error: IssuerError) -> Refusal:
    _log.warning("a code could not be exchanged for a token", why=str(error))
    return Refusal(502, "the issuer gave no token for this sign-in: try again")


def _cookie_name(request: Request) -> str:
    """With the prefix, no other host of the domain can set the cookie (RFC 6265bis, 4.1.3)."""
    return f"__Host-{_COOKIE}" if is_https(request) else _COOKIE


def _set_cookie(response: Response, request: Request, value: str, seconds: int) -> None:
    response.set_cookie(
        _cookie_name(request),
        value,
        max_age=seconds,
        path="/",
        secure=is_https(request),
        httponly=True,
        # Not strict: the issuer sends the browser back.
        samesite="lax",
    )


def _random(request: Request) -> bytes | None:
    try:
        random = bytes.fromhex(request.cookies.get(_cookie_name(request), ""))
    except ValueError:
        return None
    return random if len(random) == _RANDOM_BYTES else None


def _text(random: bytes, label: str) -> str:
    return _base64(derived_key(random, f"sign-in {label}"))


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
