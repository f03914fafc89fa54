"""Count requests and builds, and answer GET /metrics."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from http import HTTPMethod, HTTPStatus
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from function_builder.buildkits.pool import Chosen
from function_builder.builds.build import Build, Outcome
from function_builder.builds.phases import BuildPhase, Step
from function_builder.queue.port import CallbackOutcome
from function_builder.server.prometheus import Metrics
from function_builder.server.service import Service

_METHODS = frozenset(HTTPMethod)

GONE: Final = 499
"""The usual status code of a request whose client disconnected before the answer."""

REASONS: Final = {
    HTTPStatus.BAD_REQUEST: "invalid",
    HTTPStatus.UNAUTHORIZED: "signature",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.REQUEST_TIMEOUT: "upload_timeout",
    HTTPStatus.CONFLICT: "missing_content",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "compressed",
    HTTPStatus.UNPROCESSABLE_ENTITY: "idempotency_key",
    HTTPStatus.TOO_MANY_REQUESTS: "busy",
    GONE: "gone",
    HTTPStatus.NOT_IMPLEMENTED: "not_enabled",
    HTTPStatus.SERVICE_UNAVAILABLE: "unavailable",
    HTTPStatus.INSUFFICIENT_STORAGE: "disk_full",
}
"""Why a request to build started no build, by the status of its answer."""


class CountRequests:
    """ASGI middleware: counts and times each request, under labels whose number is bounded.

    Args:
        app: answers the requests.
        metrics: counts them.
        paths: the labels, each with the pattern of its paths; other paths share one label.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, paths: Mapping[str, re.Pattern[str]]
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = frozenset(paths)
        self._patterns = {path: pattern for path, pattern in paths.items() if "{" in path}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = time.perf_counter()
        code = GONE

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
            labels = (str(code), _method(scope), self._path(scope))
            self._metrics.requests.labels(*labels).inc()
            self._metrics.request_seconds.labels(*labels).observe(time.perf_counter() - started)

    def _path(self, scope: Scope) -> str:
        path: str = scope["path"].rstrip("/")
        if path in self._paths and path not in self._patterns:
            return path
        matching = (name for name, pattern in self._patterns.items() if pattern.match(path))
        return next(matching, "other")


def read_tasks(metrics: Metrics, loop: asyncio.AbstractEventLoop) -> None:
    """Make the gauge count the loop's tasks at each scrape."""
    metrics.tasks.set_function(lambda: len(asyncio.all_tasks(loop)))


def read_state(service: Service) -> None:
    """Make the gauges read the service's state at each scrape; start each known label at 0."""
    metrics, pools, spool = service.metrics, service.pools, service.spool_disk
    metrics.ready.set_function(lambda: float(not service.unready_because()))
    metrics.running.set_function(lambda: len(service.running))
    metrics.waiting.set_function(lambda: service.slots.waiting)
    metrics.slots_taken.set_function(lambda: service.slots.taken)
    metrics.slots_limit.set(service.slots.limit)
    metrics.uploads.set_function(lambda: service.uploads.taken)
    metrics.uploads_limit.set(service.uploads.limit)
    metrics.spool_available.set_function(lambda: spool().available)
    metrics.spool_size.set_function(lambda: spool().size)
    metrics.record_paths.set_function(lambda: pools.recorded_paths)
    metrics.buildkit_up.set_function(lambda: float(pools.shared.reachable))
    metrics.buildkit_daemons.labels("up").set_function(lambda: pools.answering)
    metrics.buildkit_daemons.labels("down").set_function(lambda: pools.daemons - pools.answering)
    metrics.buildkit_disk.set_function(lambda: pools.disk_bytes)
    for outcome in Outcome:
        metrics.builds.labels(outcome.value)
        metrics.build_seconds.labels(outcome.value)
    for phase in BuildPhase:
        metrics.phase_seconds.labels(phase.value)
    for chosen in Chosen:
        metrics.placed.labels(chosen.value)
    for step in Step:
        metrics.steps.labels(step.value)
    for result in CallbackOutcome:
        metrics.callbacks.labels(result.value)
    for reason in REASONS.values():
        metrics.refusals.labels(reason)


def count_build(metrics: Metrics, build: Build) -> None:
    """Count a build that has ended."""
    assert build.result is not None
    metrics.builds.labels(build.outcome.value).inc()
    metrics.build_seconds.labels(build.outcome.value).observe(build.result.duration)
    for phase, seconds in build.measures.seconds().items():
        metrics.phase_seconds.labels(phase.value).observe(seconds)
    for step, number in build.measures.steps.items():
        metrics.steps.labels(step.value).inc(number)
    for chosen in build.placed:
        metrics.placed.labels(chosen.value).inc()
    request = build.request
    for entries in (request.context, *request.folders.values()):
        metrics.context_bytes.inc(sum(entry.size for entry in entries))
    for transfer in build.transfers:
        metrics.sent_bytes.inc(transfer.sent_bytes)
        metrics.announced_files.inc(transfer.announced)
        metrics.requested_files.inc(transfer.requested)


def metrics_app(metrics: Metrics) -> Starlette:
    """The application of the metrics' own port."""
    one_at_a_time = asyncio.Lock()

    async def scrape(_: Request) -> Response:
        async with one_at_a_time:
            for refresh in metrics.refreshers:
                await refresh()
            text = await asyncio.to_thread(generate_latest, metrics.registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/metrics", scrape)])


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"
