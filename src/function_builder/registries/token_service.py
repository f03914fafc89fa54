"""HTTP requests to registries' token services, so that BuildKit gets tokens, not passwords."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

from aiobuildkit import HTTPRequest, HTTPResponse
from function_builder import __version__

if TYPE_CHECKING:
    import httpx2

ANSWER_SECONDS: Final = 10.0
"""Seconds for one request. If it is slower, BuildKit fetches the token, and waits longer."""

CONNECT_SECONDS: Final = 5.0
"""Seconds for a connection; a network policy drops packets without an error."""

MAX_ANSWER_BYTES: Final = 1 << 20
"""The most bytes of a body; a token has some kilobytes."""

_LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")


class TokenServiceHTTP:
    """Sends requests to token services, through the proxies of the environment.

    The HTTP library and the authorities are loaded for the first token, because they take 0.3 s and
    some megabytes. `SSL_CERT_FILE` and `SSL_CERT_DIR` name other authorities than the system's.
    """

    def __init__(self) -> None:
        self._trust: ssl.SSLContext | None = None

    async def send(self, request: HTTPRequest) -> HTTPResponse:
        """Make one request.

        Raises:
            OSError: the service did not answer.
        """
        if self._trust is None:
            self._trust = await asyncio.to_thread(_load)
        import httpx2  # noqa: PLC0415 (loaded by now)

        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._client(self._trust) as http:
                # No redirects: a POST contains the password, and only goes to the registry's
                # service.
                http.follow_redirects = request.method == "GET"
                async with http.stream(
                    request.method, request.url, headers=request.headers, content=request.body
                ) as response:
                    return await _read(response)
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    def _client(self, trust: ssl.SSLContext) -> httpx2.AsyncClient:
        import httpx2  # noqa: PLC0415 (loaded by now)

        return httpx2.AsyncClient(
            headers={"User-Agent": f"function-builder/{__version__}"},
            # As in Go: no proxy for connections to this machine itself.
            mounts={f"all://{host}": None for host in _LOCAL_HOSTS},
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            verify=trust,
        )


async def _read(response: httpx2.Response) -> HTTPResponse:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            break
    seconds = response.headers.get("retry-after", "")
    retry_after = float(seconds) if seconds.isdecimal() else None
    return HTTPResponse(response.status_code, bytes(body[:MAX_ANSWER_BYTES]), retry_after)


def _load() -> ssl.SSLContext:
    import httpx2  # noqa: F401, PLC0415 (into the cache of modules, outside the event loop)

    trust = ssl.create_default_context()
    # BuildKit, in Go, accepts certificates that Python 3.13 and newer reject.
    trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return trust
