"""One builder process: its ports and its background tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Final, cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from aiobuildkit.hostport import HostPort
from function_builder.engine import EngineError, listeners
from function_builder.errors import StartError
from function_builder.server.app import create_app
from function_builder.server.connections import Connections
from function_builder.server.drain import Signals, drain
from function_builder.server.from_settings import service_of
from function_builder.server.http import BoundedHTTP
from function_builder.server.malloc import keep_freed_memory
from function_builder.server.metrics import metrics_app, read_state, read_tasks
from function_builder.server.service import Service
from function_builder.server.start_checks import check_start, not_listening
from function_builder.server.tracing import Tracing, forwarded
from function_builder.settings import Settings

_log = structlog.get_logger(__name__)

_CANCELLED_ANSWERS_SECONDS: Final = 5.0
"""Seconds for the answers of cancelled builds after a drain."""


async def serve(settings: Settings, *, on_ready: Callable[[], None] | None = None) -> None:
    """Answer requests until SIGTERM or SIGINT, then drain as the contract says.

    Args:
        settings: `buildkit_url` must be set.
        on_ready: called when the ports are open.

    Raises:
        StartError: a secret is absent, or a port is taken.
    """
    keep_freed_memory()
    check_start(settings)
    if settings.disable_hmac:
        _log.warning("disable_hmac is set: EVERY client that reaches it can build and push")
    service = service_of(settings)
    read_state(service)
    read_tasks(service.metrics, asyncio.get_running_loop())
    stop = Signals()
    connections = Connections(settings.keep_alive_timeout)
    async with contextlib.AsyncExitStack() as stack:
        if settings.otlp_endpoint:
            service.tracing = await stack.enter_async_context(_spans(settings.otlp_endpoint))
        stack.enter_context(stop.caught())
        if service.audit is not None:
            stack.callback(service.audit.close)
        if service.tenants is not None:
            await stack.enter_async_context(
                service.tenants.watching(service.metrics, service.audit)
            )
        if settings.nats_url:
            await stack.enter_async_context(_queue(service))
        for app, address in (
            (create_app(service), settings.listen),
            (metrics_app(service.metrics), settings.metrics_listen),
        ):
            await stack.enter_async_context(_listening(app, address, connections))
        watch = asyncio.create_task(service.pools.watch())
        stack.callback(watch.cancel)
        _log.info("serving", listen=str(settings.listen), metrics=str(settings.metrics_listen))
        if on_ready is not None:
            on_ready()
        await stop.first.wait()
        await drain(service, connections, stop.second)
    _log.info("stopped")


def _queue(service: Service) -> contextlib.AbstractAsyncContextManager[None]:
    try:
        from function_builder.server.queued import queue_of  # noqa: PLC0415 (it may be absent)
    except ImportError as error:
        raise StartError(
            f"nats_url needs {error.name}: pip install 'function-builder[queue]'"
        ) from error
    return queue_of(service)


@contextlib.asynccontextmanager
async def _spans(endpoint: str) -> AsyncIterator[Tracing]:
    """The builder's own spans; without OpenTelemetry it starts without them."""
    try:
        from function_builder.server.spans import Spans  # noqa: PLC0415 (it may be absent)
    except ImportError as error:
        _log.warning(
            "no spans are sent: pip install 'function-builder[otel]'",
            missing=error.name,
        )
        yield forwarded
        return
    spans = Spans(endpoint)
    try:
        yield spans.trace
    finally:
        await asyncio.to_thread(spans.close)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, because ours drain."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _listening(
    app: ASGIApp, address: HostPort, connections: Connections
) -> AsyncIterator[None]:
    """Serve an application on a port; at the end, wait for the current answers."""
    try:
        sockets = listeners(address)
    except EngineError as error:
        raise not_listening(error) from error
    with contextlib.ExitStack() as stack:
        for listener in sockets:
            stack.enter_context(listener)
        config = uvicorn.Config(
            app,
            # uvicorn only calls it, so it need not be a class.
            http=cast("type[asyncio.Protocol]", partial(BoundedHTTP, connections)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            # `trusted_proxies` decides about the client's address (server/peers.py).
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=int(_CANCELLED_ANSWERS_SECONDS),
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=sockets))
        try:
            yield
        finally:
            server.should_exit = True
            await task
