"""How a page is answered."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

HEADERS: Final = {
    "Cache-Control": "no-store",
    # Nothing of another origin, no inline script or style: what a build wrote stays text.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def base(request: Request) -> str:
    """The relative path from a page to `/web/`, so that a proxy may add a prefix."""
    path: str = request.scope["path"]
    return "../" * path.removeprefix("/web").strip("/").count("/")


def html(page: str, status: int = 200) -> Response:
    """A whole page."""
    return Response(page, status, HEADERS, "text/html")
