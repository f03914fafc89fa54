"""What the builder tells its operator: structured log lines, and metrics for Prometheus."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


def configure_logging(*, json: bool, file: TextIO | None = None) -> None:
    """Write log lines to `file`, or standard error: JSON for machines, columns for people."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=(file or sys.stderr).isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file or sys.stderr),
        cache_logger_on_first_use=True,
    )


class Metrics:
    """The metrics of one builder; the first three are those of pro-builder's dashboard."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "http_requests",
            "Requests answered.",
            ["code", "method", "path"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "http_request_duration_seconds",
            "From a request's headers to the end of its answer.",
            ["code", "method", "path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "http_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self.builds = Counter(
            "function_builder_builds",
            "Builds ended, by outcome: success or failed.",
            ["outcome"],
            registry=self.registry,
        )
        self.slots_taken = Gauge(
            "function_builder_slots_taken", "Build slots taken.", registry=self.registry
        )
        self.buildkit_up = Gauge(
            "function_builder_buildkit_up",
            "Whether BuildKit answered when it was last asked.",
            registry=self.registry,
        )
