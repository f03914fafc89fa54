"""One builder process: its ports, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from aiobuildkit.hostport import HostPort
from function_builder.buildkits.from_settings import buildkits
from function_builder.builds.builder import Builder
from function_builder.builds.options import RegistryCache
from function_builder.contract.tenancy import NO_LIMITS
from function_builder.engine import EngineError, ensure_free, listeners
from function_builder.errors import StartError
from function_builder.policy.sources import LOCAL_SOURCES
from function_builder.registries.credentials import RegistryCredentials
from function_builder.server import keys
from function_builder.server.app import create_app
from function_builder.server.claims import TenantsInForce
from function_builder.server.connections import Connections
from function_builder.server.http import BoundedHTTP
from function_builder.server.malloc import keep_freed_memory
from function_builder.server.metrics import metrics_app, read_state, read_tasks
from function_builder.server.prometheus import Metrics
from function_builder.server.quotas import Quotas
from function_builder.server.replays import Replays
from function_builder.server.service import Phase, Service
from function_builder.server.slots import Slots
from function_builder.server.spool import SpoolSpace
from function_builder.server.tracing import Tracing, handed_on
from function_builder.server.unread import UnreadLogs
from function_builder.server.uploads import Uploads
from function_builder.settings import EMBEDDED, Settings

_log = structlog.get_logger(__name__)

_LAST_WORDS_SECONDS = 5.0
"""How long cancelled builds may take to tell their clients."""

_UNPROVEN_SECONDS = 3.0
"""How long a drain waits for bodies that are not proven: a stranger may make one last."""


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
    service = _service(settings)
    read_state(service)
    read_tasks(service.metrics, asyncio.get_running_loop())
    stop = _Signals()
    connections = Connections(settings.keep_alive_timeout)
    async with contextlib.AsyncExitStack() as stack:
        if settings.otlp_endpoint:
            service.tracing = await stack.enter_async_context(_spans(settings.otlp_endpoint))
        stack.enter_context(stop.caught())
        if service.tenants is not None:
            await stack.enter_async_context(service.tenants.watching(service.metrics))
        if settings.nats_url:
            await stack.enter_async_context(_queue(service))
        for app, address in (
            (create_app(service), settings.listen),
            (metrics_app(service.metrics), settings.metrics_listen),
        ):
            await stack.enter_async_context(_listening(app, address, connections))
        watch = asyncio.create_task(service.pool.watch())
        stack.callback(watch.cancel)
        _log.info("serving", listen=str(settings.listen), metrics=str(settings.metrics_listen))
        if on_ready is not None:
            on_ready()
        await stop.first.wait()
        await _drain(service, connections, stop.second)
    _log.info("stopped")


def _service(settings: Settings) -> Service:
    pool = buildkits(settings)
    own = RegistryCredentials(settings.docker_config.expanduser(), settings.docker_auth_config)
    tenants = _tenants(settings, own) if settings.tenants_file else None
    return Service(
        settings=settings,
        builder=Builder(
            pool,
            credentials=(lambda _: own) if tenants is None else tenants.credentials,
            cache=RegistryCache(settings.cache_registry, insecure=settings.insecure),
            insecure=settings.insecure,
            confirm_pushes=settings.confirm_pushes,
            log_prefixes=settings.log_prefixes,
            denied_sources=() if settings.local_sources else LOCAL_SOURCES,
        ),
        pool=pool,
        metrics=Metrics(),
        slots=Slots(
            settings.max_inflight,
            settings.max_queue,
            limits=(lambda _: NO_LIMITS) if tenants is None else tenants.limits,
        ),
        uploads=Uploads(settings.most_uploads),
        unread=UnreadLogs(),
        space=SpoolSpace(settings.spool_dir, settings.max_spool_bytes),
        tenants=tenants,
        quotas=None if tenants is None else Quotas(tenants.limits),
        replays=Replays(settings.replay_window) if settings.replay_window else None,
    )


def check_start(settings: Settings) -> None:
    """Look for what would keep the builder from its start, before anything else is started.

    Raises:
        StartError: a secret is absent, `spool_dir` cannot be written to, or a port is taken.
    """
    _check_secrets(settings)
    _check_spool(settings)
    if settings.nats_url not in ("", EMBEDDED) and not settings.store_url:
        raise StartError(
            "nats_url needs store_url: name the directory or bucket of bodies and logs, such as"
            " s3://BUCKET/PREFIX"
        )
    for address in (settings.listen, settings.metrics_listen):
        try:
            ensure_free(str(address))
        except EngineError as error:
            raise _not_listening(error) from error


def _not_listening(error: EngineError) -> StartError:
    return StartError(f"{error}: end what uses it, or choose another address")


def _check_secrets(settings: Settings) -> None:
    try:
        keys.secrets_key(settings.build_secrets_private_key_path)
        if not settings.disable_hmac:
            length = len(keys.payload_secrets(settings.secret_mount_path)[0])
            if length < keys.ADVISED_SECRET_BYTES:
                _log.warning(
                    "the payload secret is short, so it may be guessed from a signed request:"
                    " use 16 bytes or more, such as `openssl rand -base64 32` makes",
                    bytes=length,
                )
        if settings.callback_hosts:
            keys.callback_keys(settings)
    except keys.KeyFileError as error:
        raise StartError(f"{error}: write it there, or set the path") from error
    if settings.disable_hmac and settings.tenants_file:
        raise StartError("tenants_file needs signatures: unset it, or disable_hmac")
    if settings.disable_hmac and settings.replay_window:
        raise StartError("replay_window needs signatures: unset it, or disable_hmac")


def _tenants(settings: Settings, own: RegistryCredentials) -> TenantsInForce:
    from function_builder.server import tenancy  # noqa: PLC0415 (few builders have tenants)

    return tenancy.read_tenancy(settings, own)


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
    """Our own spans, if OpenTelemetry is installed; without it, the builder starts too."""
    try:
        from function_builder.server.spans import Spans  # noqa: PLC0415 (it may be absent)
    except ImportError as error:
        _log.warning(
            "no spans are sent, without OpenTelemetry: pip install 'function-builder[otel]'",
            missing=error.name,
        )
        yield handed_on
        return
    spans = Spans(endpoint)
    try:
        yield spans.trace
    finally:
        await asyncio.to_thread(spans.close)


def _check_spool(settings: Settings) -> None:
    try:
        with tempfile.TemporaryFile(dir=settings.spool_dir):
            pass
    except OSError as error:
        raise StartError(
            f"spool_dir {settings.spool_dir} cannot be written to: {error.strerror}: "
            "name another directory, with room for request bodies"
        ) from error


async def _drain(service: Service, connections: Connections, hurry: asyncio.Event) -> None:
    """Leave in the contract's order; `hurry` cuts every wait short."""
    settings = service.settings
    service.phase = Phase.LEAVING
    connections.announce_close()
    _log.info("leaving: not ready any more", **_standing(service))
    if service.worker is not None:
        # At once: another builder may begin them while this one waits for its own.
        await service.worker.drain()
    await _wait(hurry, settings.drain_delay)
    service.phase = Phase.DRAINING
    # Not before: until then a proxy may send on one, and would meet its end.
    connections.close_idle()
    if service.accepted or service.uploads.taken:
        _log.info("draining: builds may end", **_standing(service))
        ended = asyncio.create_task(_all_ended(service))
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait(
            [ended, hurried],
            timeout=settings.drain_timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
        ended.cancel()
        hurried.cancel()
    _log.info("ending: no build is begun any more", unanswered=len(service.accepted))
    if service.running or service.slots.waiting:
        _log.warning("cancelling builds", **_standing(service))
    service.end("the builder is shutting down: send the request again")


def _standing(service: Service) -> dict[str, int]:
    """How many builds there are."""
    return {"running": len(service.running), "waiting": service.slots.waiting}


async def _all_ended(service: Service) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_UNPROVEN_SECONDS):
            await service.uploads.only_proven()
    service.uploads.end_unproven()
    while service.accepted:
        await asyncio.wait(service.accepted)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class _Signals:
    """The first SIGTERM or SIGINT asks for an end, the second for a quick one."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._note)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _note(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: ours know of draining."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _listening(
    app: ASGIApp, address: HostPort, connections: Connections
) -> AsyncIterator[None]:
    """Serve an application on a port; at the end, wait for the answers under way."""
    try:
        sockets = listeners(address)
    except EngineError as error:
        raise _not_listening(error) from error
    with contextlib.ExitStack() as stack:
        for listener in sockets:
            stack.enter_context(listener)
        config = uvicorn.Config(
            app,
            # uvicorn calls it, and asks for nothing else of a class.
            http=cast("type[asyncio.Protocol]", partial(BoundedHTTP, connections)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            # Whom to believe about a client's address is a setting of ours (server/peers.py).
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=int(_LAST_WORDS_SECONDS),
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=sockets))
        try:
            yield
        finally:
            server.should_exit = True
            await task
