"""Requests counted, and GET /metrics."""

from __future__ import annotations

import time
from http import HTTPMethod

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from function_builder.telemetry import Metrics

_PATHS = frozenset({"/build", "/publickey", "/public-key", "/healthz", "/ready"})
_METHODS = frozenset(HTTPMethod)


class CountRequests:
    """ASGI middleware: counts and times each request, under labels whose number is bounded."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = time.perf_counter()
        # A request that is never answered went away first; 499 is the usual word for that.
        code = 499

        async def note_code(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, note_code)
        except BaseException:
            code = 500
            raise
        finally:
            self._metrics.in_flight.dec()
            labels = (str(code), _method(scope), _path(scope))
            self._metrics.requests.labels(*labels).inc()
            self._metrics.request_seconds.labels(*labels).observe(time.perf_counter() - started)


def metrics_app(metrics: Metrics) -> Starlette:
    """The application of the metrics' own port."""

    def scrape(_: Request) -> Response:
        return Response(
            generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    return Starlette(routes=[Route("/metrics", scrape)])


def _path(scope: Scope) -> str:
    path = scope["path"].rstrip("/")
    return path if path in _PATHS else "other"


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"
