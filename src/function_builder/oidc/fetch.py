"""Bounded requests to issuers.

A redirect is refused, so that only hosts that the operator named are asked.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from function_builder import __version__
from function_builder.oidc.keys import Keys, parse_json, read_keys
from function_builder.oidc.trust import Issuer, url_fault

ANSWER_SECONDS: Final = 5.0
"""Seconds for one answer, from the lookup of the name to its last byte."""

MAX_ANSWER_BYTES: Final = 256 * 1024
"""The most bytes of an answer; a discovery document or a JWK set has some kilobytes."""

_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")


class IssuerError(Exception):
    """An issuer did not answer, or its answer cannot be used; the text says why."""


async def fetch_keys(issuer: Issuer) -> Keys:
    """The keys of an issuer's tokens.

    Raises:
        IssuerError: they cannot be read.
    """
    uri = issuer.jwks_uri
    if not uri:
        uri = str((await discover(issuer)).get("jwks_uri"))
        if url_fault(uri) or _origin(uri) != _origin(issuer.url):
            raise IssuerError(
                f"its keys are at {uri[:200]!r}, which is not its own host: if that is right, give "
                "the tenants file jwks_uri"
            )
    try:
        keys = read_keys(await ask(issuer, uri))
    except ValueError as error:
        raise IssuerError(str(error)) from error
    if not keys:
        raise IssuerError("it has no key that can verify tokens")
    return keys


async def discover(issuer: Issuer) -> Mapping[str, Any]:
    """The discovery document of an issuer (OpenID Connect Discovery 1.0, 4).

    Raises:
        IssuerError: it cannot be read, or is another issuer's.
    """
    found = await ask(issuer, f"{issuer.url.rstrip('/')}/.well-known/openid-configuration")
    if not isinstance(found, dict) or found.get("issuer") != issuer.url:
        raise IssuerError("its discovery document is not that of this issuer")
    return found


async def ask(
    issuer: Issuer,
    url: str,
    *,
    form: Mapping[str, str] | None = None,
    basic: tuple[str, str] | None = None,
) -> Any:
    """Request a JSON document.

    Args:
        issuer: has the trusted authorities and the bearer token to send.
        url: of the document.
        form: what is posted; None: it is a GET.
        basic: user and password; None: none are sent.

    Raises:
        IssuerError: there was no document.
    """
    headers = {
        # A Kubernetes API server answers 406 without the second type (RFC 7517, 8.5).
        "Accept": "application/json, application/jwk-set+json",
        # Otherwise a small answer could expand to a large one.
        "Accept-Encoding": "identity",
        "User-Agent": f"function-builder/{__version__}",
    }
    try:
        # Files, and the authorities of the system, are read outside the event loop.
        trust, token = await asyncio.to_thread(_read_access, issuer)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            httpx2.AsyncClient(
                auth=basic,
                headers=headers,
                follow_redirects=False,
                mounts={f"all://{host}": None for host in _LOCAL_HOSTS},
                verify=trust,
            ) as http,
            http.stream("GET" if form is None else "POST", url, data=form) as response,
        ):
            if response.status_code != httpx2.codes.OK:
                raise IssuerError(f"it answered {response.status_code}")
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise IssuerError(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        return parse_json(bytes(body))
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise IssuerError(f"{type(error).__name__}: {error}") from error


def _read_access(issuer: Issuer) -> tuple[ssl.SSLContext, str]:
    trust = ssl.create_default_context(cadata=issuer.authorities or None)
    # Python 3.13 and newer reject authorities that Go, and so Kubernetes, accepts.
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    token = issuer.token_file.read_text().strip() if issuer.token_file else ""
    return trust, token


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
