"""Responses with a page, and their headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

HEADERS: Final = {
    "Cache-Control": "no-store",
    # No other origin, no inline script or style: the output of a build is never executed.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Frame(NamedTuple):
    """What is around a page's content.

    Attributes:
        base: the relative path from the page to `/web/`, so that a proxy may add a prefix.
        here: the page's path below `/web/`.
        links: paths below `/web/` that the browser may open, and their texts.
    """

    base: str
    here: str
    links: Mapping[str, str]


def frame(request: Request) -> Frame:
    """The frame of a page; its links are those of the browser's session, once that is known."""
    path: str = request.scope["path"].removeprefix("/web").strip("/")
    return Frame("../" * path.count("/"), path, getattr(request.state, "links", {}))


def html(page: str, status: int = 200) -> Response:
    """A whole page."""
    return Response(page, status, HEADERS, "text/html")
