"""Addresses, limits, uploads, logs and the shutdown of the HTTP service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aiobuildkit.hostport import HostPort
from function_builder.contract.log import LogPrefixes
from function_builder.settings import values
from function_builder.settings.values import Networks, setting


@dataclass(frozen=True, kw_only=True)
class ServingSettings:
    """A part of `Settings`."""

    listen: HostPort = setting(
        "listen",
        HostPort.parse,
        HostPort("", 8080),
        """The address that answers POST /build and the probes. Without a host, or with `[::]`, it
        is every address of this machine, IPv4 and IPv6. With `0.0.0.0` it is every IPv4
        address.""",
    )
    metrics_listen: HostPort = setting(
        "metrics_listen",
        HostPort.parse,
        HostPort("", 8081),
        "The address that answers GET /metrics, in the same form.",
    )
    keep_alive_timeout: float = setting(
        "keep_alive_timeout",
        values.seconds,
        620.0,
        """How long a connection without a request is kept open. Make it longer than the idle
        timeout of each proxy and client. Otherwise a client can get an error, because the builder
        closes the connection while the client sends a request.""",
    )
    trusted_proxies: Networks = setting(
        "trusted_proxies",
        values.networks,
        (),
        """Networks of proxies whose X-Forwarded-For or Forwarded header names the client, comma
        separated, such as `10.0.0.0/8,fd00::/8`. The client's address is logged, and limits count
        uploads for each address. Empty: the client is the peer of the connection.""",
    )
    max_inflight: int = setting(
        "max_inflight",
        values.count,
        0,
        """The most builds at a time. Another request waits in the queue, or is refused with 429. 0:
        no limit.""",
    )
    max_queue: int = setting(
        "max_queue",
        values.count,
        0,
        """The most requests that may wait for a build slot, in the order of their arrival.
        Another one is refused with 429. 0: no request waits.""",
    )
    queue_timeout: float = setting(
        "queue_timeout",
        values.seconds,
        300.0,
        "How long a request may wait in the queue before it is refused with 429.",
    )
    ready_when_full: bool = setting(
        "ready_when_full",
        values.flag,
        False,
        """Whether /ready stays 200 while all build slots are taken, so that a Service continues
        to send requests, which wait or get a 429.""",
    )
    max_uploads: int = setting(
        "max_uploads",
        values.count,
        0,
        """How many bodies may be uploading at a time before their signature is verified. Clients
        that prove the signature in the headers (X-Build-Timestamp) have the same number for
        themselves. Beyond it, the slowest upload of the address with the most uploads is refused
        with 429. 0: the largest of `max_inflight` + `max_queue`, 4 for each slot, and 16; without
        `max_inflight` 256.""",
    )
    max_body_bytes: int = setting(
        "max_body_bytes",
        values.size,
        2**30,
        "The largest body of a request. A larger one is refused with 413.",
    )
    max_context_entries: int = setting(
        "max_context_entries",
        values.count,
        200_000,
        "The most entries in a request's tar. More are refused with 413.",
    )
    upload_timeout: float = setting(
        "upload_timeout",
        values.seconds,
        60.0,
        """How long an upload may pause before it is refused with 408. So is an upload that takes
        more than twice this time plus 1 s for each KiB.""",
    )
    spool_dir: Path = setting(
        "spool_dir",
        Path,
        Path("/tmp"),  # noqa: S108 (its files are unlinked from their first moment)
        "The directory for large request bodies, which are files without a name.",
    )
    max_spool_bytes: int = setting(
        "max_spool_bytes",
        values.size,
        0,
        """The most bytes of all bodies there together. Beyond it, a request is refused with 507. 0:
        no limit.""",
    )
    build_timeout: float = setting(
        "build_timeout", values.seconds, 1800.0, "How long a build may take, including the push."
    )
    drain_delay: float = setting(
        "drain_delay",
        values.seconds,
        5.0,
        """After SIGTERM: how long the builder still accepts requests, until a Service has stopped
        sending them.""",
    )
    drain_timeout: float = setting(
        "drain_timeout",
        values.seconds,
        300.0,
        "After `drain_delay`: how long running builds may continue.",
    )
    log_prefixes: LogPrefixes = setting(
        "log_prefixes",
        values.log_prefixes,
        LogPrefixes.FULL,
        """The beginning of each log line: `full` (kind and time, as in pro-builder's API
        document), `time` (as in pro-builder 0.5.3 and newer) or `none`. `true` means `full`,
        `false` means `none`.""",
    )
    otlp_endpoint: str = setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        values.text,
        "",
        """The OpenTelemetry collector that receives spans, `http://host:4318`. It needs the extra
        `otel`. Empty: no spans are sent.""",
    )
    enable_lchown: bool = setting(
        "enable_lchown",
        values.flag,
        False,
        "Accepted, without effect: the builder does not unpack archives.",
    )

    @property
    def largest_body(self) -> int:
        """Bytes of the largest request that the builder accepts."""
        return min(self.max_body_bytes, self.max_spool_bytes or self.max_body_bytes)

    @property
    def most_uploads(self) -> int:
        """The most bodies that may be uploading at a time."""
        if self.max_uploads or not self.max_inflight:
            return self.max_uploads or 256
        # With fewer, requests that the queue could hold would be refused.
        return max(16, 4 * self.max_inflight, self.max_inflight + self.max_queue)
