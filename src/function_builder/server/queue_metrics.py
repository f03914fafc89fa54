"""The metrics of the queue."""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from typing import Final

from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.queue.connection import Unavailable
from function_builder.queue.depth import Depth, measure
from function_builder.queue.jetstream import JetStream
from function_builder.server.prometheus import Metrics

_SECONDS: Final = 3.0
"""Less than Prometheus' default of 10, so that a scrape without NATS gets the other metrics."""


class Part(StrEnum):
    """The parts of a queue."""

    NATS = "nats"
    STORE = "store"


class Failure(StrEnum):
    """Why a request to a part failed."""

    FULL = "full"
    UNAVAILABLE = "unavailable"


class State(StrEnum):
    """The state of a build in the queue."""

    WAITING = "waiting"
    BEGUN = "begun"


class QueueMetrics:
    """Counts failed requests, and gets the depth at each scrape.

    Args:
        metrics: this builder's.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        for part in Part:
            for failure in Failure:
                metrics.queue_failures.labels(part.value, failure.value)
        for state in State:
            metrics.queue_builds.labels(DEFAULT_TENANT, state.value)

    def note_nats(self, full: bool) -> None:
        """Count a failed request to NATS."""
        self._note(Part.NATS, full=full)

    def note_store(self, full: bool) -> None:
        """Count a failed request to the store."""
        self._note(Part.STORE, full=full)

    def _note(self, part: Part, *, full: bool) -> None:
        failure = Failure.FULL if full else Failure.UNAVAILABLE
        self._metrics.queue_failures.labels(part.value, failure.value).inc()

    def show(self, jetstream: JetStream) -> None:
        """Show the queue in each scrape."""
        self._metrics.register_queue()

        async def refresh() -> None:
            self._set(await _depth(jetstream))

        self._metrics.refreshers.append(refresh)

    def _set(self, depth: Depth | None) -> None:
        metrics = self._metrics
        metrics.queue_up.set(float(depth is not None))
        # Unknown values are left out, because an old value would look like a stuck queue.
        metrics.queue_builds.clear()
        if depth is None:
            metrics.queue_oldest.set(float("nan"))
            metrics.callbacks_waiting.set(float("nan"))
            return
        for state, builds in ((State.WAITING, depth.waiting), (State.BEGUN, depth.begun)):
            for tenant, number in ({DEFAULT_TENANT: 0} | dict(builds)).items():
                metrics.queue_builds.labels(tenant, state.value).set(number)
        metrics.queue_oldest.set(depth.oldest)
        metrics.callbacks_waiting.set(depth.callbacks)


async def _depth(jetstream: JetStream) -> Depth | None:
    if not jetstream.connected:
        return None
    try:
        async with asyncio.timeout(_SECONDS):
            return await measure(jetstream, time.time())
    except (Unavailable, TimeoutError):
        return None
