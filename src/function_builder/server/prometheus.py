"""The builder's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from function_builder import __version__

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """The metrics of one builder.

    Names and units follow Prometheus's conventions. All values of labels are from fixed sets, so a
    client cannot increase their number. docs/monitoring.md lists them.

    Attributes:
        refreshers: called before a scrape, to get values that are not in this process.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refreshers: list[Callable[[], Awaitable[None]]] = []
        ProcessCollector(registry=self.registry)
        self._gauge("info", "The builder's version.", ["version"]).labels(__version__).set(1)
        self._declare_requests()
        self._declare_builds()
        self._declare_state()
        self._declare_queue()
        self._declare_tenants()

    def _declare_requests(self) -> None:
        """The first three are those of pro-builder's dashboard."""
        labels = ["code", "method", "path"]
        self.requests = Counter(
            "http_requests", "Requests answered.", labels, registry=self.registry
        )
        self.request_seconds = Histogram(
            "http_request_duration_seconds",
            "From a request's headers to the end of its answer.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "http_requests_in_flight", "Requests being answered.", registry=self.registry
        )
        self.refusals = self._counter(
            "refusals", "Requests to build that started no build, by reason.", ["reason"]
        )

    def _declare_builds(self) -> None:
        self.builds = self._counter("builds", "Builds ended, by outcome.", ["outcome"])
        self.build_seconds = self._histogram(
            "build_duration_seconds",
            "From a request's acceptance to its build's end, by outcome.",
            "outcome",
        )
        self.phase_seconds = self._histogram(
            "build_phase_duration_seconds",
            "Parts of a build's time; those of BuildKit may overlap.",
            "phase",
        )
        self.steps = self._counter(
            "build_steps",
            "Steps of Dockerfiles that ended, by result: cached, run or failed.",
            ["result"],
        )
        self.placed = self._counter(
            "builds_placed",
            "Builds sent to a BuildKit: the function's home, or another one because the home was "
            "busy, or because a BuildKit was lost.",
            ["reason"],
        )
        self.callbacks = self._counter(
            "callback_attempts",
            "Attempts to send a callback, by outcome.",
            ["outcome"],
        )
        self.received_bytes = self._counter("received_bytes", "Bodies of POST /build.")
        self.context_bytes = self._counter("context_bytes", "Content of build contexts received.")
        self.sent_bytes = self._counter("context_sent_bytes", "Content that BuildKit asked for.")
        self.announced_files = self._counter(
            "context_announced_entries", "Entries of build contexts announced to BuildKit."
        )
        self.requested_files = self._counter(
            "context_requested_files", "Files of build contexts that BuildKit asked for."
        )

    def _declare_state(self) -> None:
        self.ready = self._gauge("ready", "Whether /ready answers 200.")
        self.running = self._gauge("builds_in_progress", "Builds that are running.")
        self.waiting = self._gauge("builds_waiting", "Builds that are waiting for a slot.")
        self.slots_taken = self._gauge("slots_taken", "Build slots taken.")
        self.slots_limit = self._gauge("slots_limit", "The number of build slots; 0: no limit.")
        self.uploads = self._gauge("uploads_in_progress", "Bodies that are being received.")
        self.uploads_limit = self._gauge(
            "uploads_limit", "The most bodies at a time: proven at the headers, and others."
        )
        self.tasks = self._gauge("tasks", "asyncio tasks that have not ended.")
        self.spool_available = self._gauge(
            "spool_available_bytes", "Room on the disk for request bodies."
        )
        self.spool_size = self._gauge("spool_size_bytes", "Size of the disk for request bodies.")
        self.record_paths = self._gauge(
            "content_record_paths", "Paths whose content BuildKit is known to have."
        )
        self.buildkit_up = self._gauge(
            "buildkit_up", "Whether any BuildKit answered when it was last asked."
        )
        self.buildkit_daemons = self._gauge(
            "buildkit_daemons",
            "BuildKits, by whether they answered when they were last asked.",
            ["state"],
        )
        self.buildkit_disk = self._gauge(
            "buildkit_disk_bytes",
            "The size of the caches of all BuildKits, some minutes ago.",
        )

        self.tenants = self._gauge("tenants", "The number of tenants; 0: there is no tenants_file.")
        self.tenants_stale = self._gauge(
            "tenants_file_stale", "Whether tenants_file has changed and has an error."
        )

    def _declare_queue(self) -> None:
        """Not registered, because a builder without a queue has none of them (`register_queue`)."""
        self.queue_up = Gauge("function_builder_queue_up", "Whether NATS answers.", registry=None)
        self.queue_builds = Gauge(
            "function_builder_queue_builds",
            "Builds in the queue of all builders, by state.",
            ["tenant", "state"],
            registry=None,
        )
        self.queue_oldest = Gauge(
            "function_builder_queue_oldest_waiting_seconds",
            "How long the oldest waiting build has waited.",
            registry=None,
        )
        self.redeliveries = Counter(
            "function_builder_queue_redeliveries",
            "Queued builds that JetStream has redelivered to this builder.",
            registry=None,
        )
        self.queue_failures = Counter(
            "function_builder_queue_failures",
            "Requests of this builder to NATS or to the store that failed.",
            ["part", "reason"],
            registry=None,
        )
        self.callbacks_waiting = Gauge(
            "function_builder_callbacks_waiting",
            "Callbacks that are not delivered yet, of all builders.",
            registry=None,
        )

    def _declare_tenants(self) -> None:
        """Not registered: a builder without tenants_file says nothing of tenants."""
        self.tenant_builds = Counter(
            "function_builder_tenant_builds",
            "Builds ended, by tenant and outcome.",
            ["tenant", "outcome"],
            registry=None,
        )
        self.tenant_seconds = Counter(
            "function_builder_tenant_build_seconds",
            "Seconds for which the builds of a tenant had slots.",
            ["tenant"],
            registry=None,
        )
        self.tenant_received_bytes = Counter(
            "function_builder_tenant_received_bytes",
            "Bodies of a tenant's requests to build.",
            ["tenant"],
            registry=None,
        )
        self.tenant_limited = Counter(
            "function_builder_tenant_limited",
            "Requests refused with 429, by tenant and the limit that was met.",
            ["tenant", "limit"],
            registry=None,
        )
        self.tenant_waiting = Gauge(
            "function_builder_tenant_builds_waiting",
            "Builds of a tenant that wait for a slot; all its queued builds count as one.",
            ["tenant"],
            registry=None,
        )
        self.tenant_slots = Gauge(
            "function_builder_tenant_slots_taken",
            "Build slots that a tenant has taken.",
            ["tenant"],
            registry=None,
        )

        self.oidc_failures = Counter(
            "function_builder_oidc_fetch_failures",
            "Attempts to read the keys of an OIDC issuer that failed.",
            ["issuer"],
            registry=None,
        )
        self.oidc_keys_age = Gauge(
            "function_builder_oidc_keys_age_seconds",
            "Since the keys of an OIDC issuer were read; since the start if they never were.",
            ["issuer"],
            registry=None,
        )

    def register_tenants(self) -> None:
        """Show what is known of each tenant from now on."""
        for metric in (
            self.tenant_builds,
            self.tenant_seconds,
            self.tenant_received_bytes,
            self.tenant_limited,
            self.tenant_waiting,
            self.tenant_slots,
            self.oidc_failures,
            self.oidc_keys_age,
        ):
            self.registry.register(metric)

    def register_queue(self) -> None:
        """Show the metrics of the queue from now on."""
        for metric in (
            self.queue_up,
            self.queue_builds,
            self.queue_oldest,
            self.redeliveries,
            self.queue_failures,
            self.callbacks_waiting,
        ):
            self.registry.register(metric)

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"function_builder_{name}", text, labels or [], registry=self.registry)

    def _gauge(self, name: str, text: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(f"function_builder_{name}", text, labels or [], registry=self.registry)

    def _histogram(self, name: str, text: str, label: str) -> Histogram:
        return Histogram(
            f"function_builder_{name}", text, [label], buckets=_SECONDS, registry=self.registry
        )
