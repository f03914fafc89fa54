"""Sends callbacks with the settings, secrets and metrics of this builder."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import structlog

from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.queue.port import CallbackOutcome
from function_builder.queue.webhooks import CallbackKeys
from function_builder.server import keys
from function_builder.server.service import Service

if TYPE_CHECKING:
    from function_builder.queue.callbacks import Deliveries, Report

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def sending_callbacks(
    service: Service, stream: Deliveries, report: Report, clock: Callable[[], float]
) -> AsyncIterator[None]:
    """Send the callbacks of a stream, if `callback_hosts` allows any.

    Args:
        service: has the settings, the secrets and the metrics.
        stream: keeps the callbacks.
        report: called with the state of the callback of a build's end.
        clock: gives the time of the queue.
    """
    settings = service.settings
    if not settings.callback_hosts:
        yield
        return
    # Imported here, because an HTTP client needs some megabytes of memory.
    from function_builder.queue.callbacks import Callbacks, KeysUnavailable  # noqa: PLC0415 (only with a queue)
    from function_builder.queue.outbound import Outbound  # noqa: PLC0415 (as above)

    def signing(tenant: str) -> CallbackKeys:
        if tenant != DEFAULT_TENANT:
            found = service.tenants.callback_keys(tenant) if service.tenants else None
            if found is None:
                raise KeysUnavailable("its tenant no longer has a webhook secret")
            return found
        try:
            return keys.callback_keys(settings)
        except keys.KeyFileError as error:
            raise KeysUnavailable(str(error)) from error

    def count(outcome: CallbackOutcome) -> None:
        service.metrics.callbacks.labels(outcome.value).inc()

    hosts = settings.callback_hosts
    callbacks = Callbacks(
        stream, Outbound(hosts), hosts, signing, count, report=report, clock=clock
    )
    task = asyncio.create_task(callbacks.run(), name="callbacks")
    task.add_done_callback(_log_fault)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _log_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (fault := task.exception()) is not None:
        _log.error("callbacks are no longer sent", exc_info=fault)
