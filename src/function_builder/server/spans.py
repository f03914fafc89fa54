"""The builder's own spans, for an OpenTelemetry collector; needs the extra `otel`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from function_builder import __version__
from function_builder.builds.phases import Measures
from function_builder.server.tracing import Trace

_propagator = TraceContextTextMapPropagator()

_PATIENCE: Final = 3
"""The timeout of one batch, and the longest wait for the last one when the builder ends."""


class Spans:
    """Sends one span for each request, with a child span for each phase of its build.

    BuildKit's spans are also below the request's, if it uses the same collector.

    Args:
        endpoint: the collector's address for OTLP over HTTP, without the path of traces.
    """

    def __init__(self, endpoint: str) -> None:
        ours = {"service.name": "function-builder", "service.version": __version__}
        self._provider = TracerProvider(
            resource=Resource.create(ours).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_PATIENCE)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("function_builder", __version__)

    @contextmanager
    def trace(self, headers: Mapping[str, str], measures: Measures) -> Iterator[Trace]:
        """Enter the trace of a request, in a span that can have child spans."""
        given = _propagator.extract(Trace.of(headers).headers)
        span = self._tracer.start_span(
            "POST /build", given, SpanKind.SERVER, start_time=measures.accepted
        )
        below: dict[str, str] = {}
        _propagator.inject(below, set_span_in_context(span))
        trace = Trace(format_trace_id(span.get_span_context().trace_id), below)
        try:
            yield trace
        finally:
            self._add_phases(span, measures)
            span.set_attribute("function_builder.outcome", trace.outcome or "crashed")
            span.end()

    def close(self) -> None:
        """Send the remaining spans; it blocks until they are sent, or until the timeout."""
        self._provider.shutdown()

    def _add_phases(self, span: Span, measures: Measures) -> None:
        context = set_span_in_context(span)
        for phase, (began, ended) in measures.spans.items():
            self._tracer.start_span(phase.value, context, start_time=began).end(ended)
