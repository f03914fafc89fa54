"""All settings of the builder. No other module reads the environment for them.

They come from environment variables in lower case, as in pro-builder; a flag overrides its
variable. Durations are seconds or Go's notation (`90`, `90s`, `5m`, `1h30m`), sizes are bytes or
have a unit (`1GiB`, `512MB`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Final, TypeAlias

from aiobuildkit.hostport import HostPort
from function_builder.contract.callback_url import CallbackHosts
from function_builder.contract.log import LogPrefixes


class SettingsError(ValueError):
    """A setting is invalid; the text names it and its valid values."""


def _text(value: str) -> str:
    return value


def _flag(value: str) -> bool:
    """Go's strconv.ParseBool, as in pro-builder."""
    word = value.strip().lower()
    if word in ("1", "t", "true"):
        return True
    if word in ("0", "f", "false", ""):
        return False
    raise ValueError("must be true or false")


def _count(value: str) -> int:
    count = int(value)
    if count < 0:
        raise ValueError("must not be negative")
    return count


_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)")


def _seconds(value: str) -> float:
    text = value.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("must be a duration such as 90s or 5m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


_SIZES: Final = {
    "": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}


def _bytes(value: str) -> int:
    match = re.fullmatch(r"([0-9]+)\s*([A-Za-z]*)", value.strip())
    if match is None or match[2].upper() not in _SIZES:
        raise ValueError("must be a size such as 1GiB or 512MB")
    return int(match[1]) * _SIZES[match[2].upper()]


def _log_prefixes(value: str) -> LogPrefixes:
    try:
        return LogPrefixes(value.strip().lower())
    except ValueError:
        pass
    try:
        return LogPrefixes.FULL if _flag(value) else LogPrefixes.NONE
    except ValueError:
        raise ValueError("must be full, time or none") from None


def _log_limit(value: str) -> int:
    """Bytes as BuildKit reads them: -1 is no limit; BuildKit ignores a value of over 32 bits."""
    if value.strip() == "-1":
        return -1
    size = _bytes(value)
    if size >= 2**31:
        raise ValueError("must be less than 2GiB, or -1 for no limit")
    return size


def _words(value: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in value.split(",") if word.strip())


Networks: TypeAlias = tuple[IPv4Network | IPv6Network, ...]
"""Ranges of IP addresses."""


def _networks(value: str) -> Networks:
    try:
        return tuple(map(ip_network, _words(value)))
    except ValueError as error:
        # The library's text names the address and the fault, such as host bits that are set.
        raise ValueError(f"must be networks such as 10.0.0.0/8: {error}") from error


def _pairs(value: str) -> tuple[tuple[str, str], ...]:
    pairs = [word.partition("=") for word in _words(value)]
    for host, _, other in pairs:
        if not (_REGISTRY.fullmatch(host) and other):
            raise ValueError("must be REGISTRY=VALUE,..., such as ghcr.io=mirror.internal:5000")
    return tuple((host, other) for host, _, other in pairs)


def _mirrors(value: str) -> tuple[tuple[str, str], ...]:
    pairs = _pairs(value)
    if not all(_MIRROR.fullmatch(mirror) for _, mirror in pairs):
        raise ValueError("must be REGISTRY=MIRROR,..., such as ghcr.io=mirror.internal:5000")
    return pairs


def _registries(value: str) -> tuple[str, ...]:
    hosts = _words(value)
    if not all(map(_REGISTRY.fullmatch, hosts)):
        raise ValueError("must be HOST:PORT,..., such as registry.internal:5000")
    return hosts


def _addresses(value: str) -> tuple[str, ...]:
    servers = _words(value)
    for server in servers:
        try:
            ip_address(server)
        except ValueError:
            raise ValueError("must be IP addresses, such as 10.0.0.2,10.0.0.3") from None
    return servers


def _frontends(value: str) -> tuple[str, ...]:
    entries = _words(value)
    if not all(map(_FRONTEND.fullmatch, entries)):
        raise ValueError(
            "must be NAME, NAME@sha256:DIGEST (64 hex digits) or NAME=built-in, comma separated"
        )
    return entries


EMBEDDED: Final = "embedded"
"""The value of `nats_url` for a nats-server of the builder's own."""


def _nats(value: str) -> str:
    schemes = ("nats://", "tls://")
    if (
        value
        and value != EMBEDDED
        and not all(word.startswith(schemes) for word in value.split(","))
    ):
        raise ValueError("must be embedded, or nats://HOST:PORT, or tls://HOST:PORT")
    return value


def _replicas(value: str) -> int:
    if value not in ("1", "3", "5"):
        raise ValueError("must be 1, 3 or 5")
    return int(value)


def _log_level(value: str) -> str:
    if value not in ("debug", "info", "warn", "error"):
        raise ValueError("must be debug, info, warn or error")
    return value


_REGISTRY = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")
_FRONTEND = re.compile(r"[A-Za-z0-9._:/\[\]-]+(@sha256:[0-9a-f]{64}|=built-in)?")
_MIRROR = re.compile(_REGISTRY.pattern + r"(/[a-z0-9._/-]+)?")
_REPOSITORY = re.compile(r"([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+")


def _repository(value: str) -> str:
    name = value.strip().rstrip("/")
    if name and not _REPOSITORY.fullmatch(name):
        raise ValueError("must be REGISTRY/NAME, such as registry.internal:5000/build-cache")
    return name


def _setting(
    variable: str, parse: Callable[[str], Any], default: Any, doc: str, *, secret: bool = False
) -> Any:
    return field(
        default=default,
        repr=not secret,
        metadata={"variable": variable, "parse": parse, "doc": " ".join(doc.split())},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of `function-builder serve`; each field's metadata has its variable and text."""

    listen: HostPort = _setting(
        "listen",
        HostPort.parse,
        HostPort("", 8080),
        """The address that answers POST /build and the probes. Without a host, or with `[::]`, it
        is every address of this machine, IPv4 and IPv6. With `0.0.0.0` it is every IPv4
        address.""",
    )
    metrics_listen: HostPort = _setting(
        "metrics_listen",
        HostPort.parse,
        HostPort("", 8081),
        "The address that answers GET /metrics, in the same form.",
    )
    keep_alive_timeout: float = _setting(
        "keep_alive_timeout",
        _seconds,
        620.0,
        """How long a connection without a request is kept open. Make it longer than the idle
        timeout of each proxy and client. Otherwise a client can get an error, because the builder
        closes the connection while the client sends a request.""",
    )
    buildkit_url: str = _setting(
        "buildkit_url",
        _text,
        "",
        """BuildKit's address, `unix:///path` or `tcp://host:port`; several, separated by commas;
        or `dns://name:port`, where each address of the name is a BuildKit. Empty: the builder
        starts a BuildKit of its own.""",
    )
    buildkit_server_name: str = _setting(
        "buildkit_server_name",
        _text,
        "",
        "The name in BuildKit's TLS certificate, if it is not the host of `buildkit_url`.",
    )
    tls_ca: str = _setting(
        "tlscacert",
        _text,
        "",
        """The CA that signed BuildKit's certificate (flag `--tlscacert`). If none of these three
        is set and BuildKit is on TCP, the builder uses `ca.crt`, `client.crt` and `client.key` in
        `/var/secrets/certs`, if they exist.""",
    )
    tls_cert: str = _setting(
        "tlscert", _text, "", "The builder's client certificate for BuildKit (flag `--tlscert`)."
    )
    tls_key: str = _setting("tlskey", _text, "", "The key of that certificate (flag `--tlskey`).")
    insecure: bool = _setting(
        "insecure",
        _flag,
        False,
        "Push without verifying the registry's TLS certificate, or over plain HTTP.",
    )
    confirm_pushes: bool = _setting(
        "confirm_pushes",
        _flag,
        True,
        """Whether the builder asks the registry for an image after its push. Set `false` for a
        registry that answers 404 to credentials that may push but not pull.""",
    )
    cache_registry: str = _setting(
        "cache_registry",
        _repository,
        "",
        """A repository such as `registry.internal:5000/build-cache`, below which each function's
        build cache is also stored, for a BuildKit that does not have it. Empty: no cache is
        stored in a registry.""",
    )
    disable_hmac: bool = _setting(
        "disable_hmac",
        _flag,
        False,
        "Build for every client, without a signature. Only for a closed network.",
    )
    replay_window: float = _setting(
        "replay_window",
        _seconds,
        0.0,
        """The most by which the time in a request's X-Build-Timestamp may differ from the
        builder's clock. A request without this header, or one that was accepted before, is
        answered 401. 0 disables the check.""",
    )
    read_window: float = _setting(
        "read_window",
        _seconds,
        300.0,
        """The most by which the time in the X-Build-Timestamp of a request about builds, such as
        `GET /builds`, may differ from the builder's clock. The header is always required there.""",
    )
    max_inflight: int = _setting(
        "max_inflight",
        _count,
        0,
        """The most builds at a time. Another request waits in the queue, or is answered 429. 0:
        no limit.""",
    )
    max_queue: int = _setting(
        "max_queue",
        _count,
        0,
        """The most requests that may wait for a build slot, in the order of their arrival.
        Another one is answered 429. 0: no request waits.""",
    )
    queue_timeout: float = _setting(
        "queue_timeout",
        _seconds,
        300.0,
        "How long a request may wait in the queue before it is answered 429.",
    )
    ready_when_full: bool = _setting(
        "ready_when_full",
        _flag,
        False,
        """Whether /ready stays 200 while all build slots are taken, so that a Service continues
        to send requests, which wait or get a 429.""",
    )
    max_uploads: int = _setting(
        "max_uploads",
        _count,
        0,
        """The most bodies that may be uploading at a time without a verified signature, and the
        same number of bodies whose client proved its signature in the headers
        (X-Build-Timestamp). Beyond it, the builder takes the address with the most uploads, and
        answers its slowest one with 429. 0: the largest of `max_inflight` + `max_queue`, 4 for
        each slot, and 16; without `max_inflight` 256.""",
    )
    trusted_proxies: Networks = _setting(
        "trusted_proxies",
        _networks,
        (),
        """Networks of proxies whose X-Forwarded-For or Forwarded header names the client, comma
        separated, such as `10.0.0.0/8,fd00::/8`. The client's address is logged, and limits count
        uploads for each address. Empty: the client is the peer of the connection.""",
    )
    enable_lchown: bool = _setting(
        "enable_lchown",
        _flag,
        False,
        "Accepted, without effect: the builder does not unpack archives.",
    )
    build_secrets_private_key_path: str = _setting(
        "build_secrets_private_key_path",
        _text,
        "",
        """The file with the private key that decrypts sealed build secrets. Empty: requests with
        build secrets are refused.""",
    )
    secret_mount_path: Path = _setting(
        "secret_mount_path",
        Path,
        Path("/var/openfaas/secrets"),
        """The directory of `payload-secret`, of `webhook-secret` if callbacks are sent, and of
        `payload-secret-previous` and `webhook-secret-previous` during a rotation.""",
    )
    tenants_file: str = _setting(
        "tenants_file",
        _text,
        "",
        """The file of the tenants, which is read again when it changes. Empty: all requests are
        those of one tenant, `default`.""",
    )
    callback_hosts: CallbackHosts = _setting(
        "callback_hosts",
        CallbackHosts.parse,
        CallbackHosts(),
        """Hosts that callbacks may be sent to, comma separated: `hooks.example.com`,
        `*.example.org:8443`, or `*` for every name. Without a port: 80 and 443; with `:*`: every
        port. An address that is not public must be in a network of the list too, such as
        `10.0.0.0/8:8080`. Empty: no callbacks are sent.""",
    )
    docker_config: Path = _setting(
        "DOCKER_CONFIG",
        Path,
        Path("~/.docker"),
        "The directory of `config.json`, which holds the registries' credentials.",
    )
    docker_auth_config: str = _setting(
        "DOCKER_AUTH_CONFIG",
        _text,
        "",
        """The JSON of a `config.json`, such as `{"auths": {"HOST": {"auth": "…"}}}`. Its entries
        come first.""",
        secret=True,
    )
    max_body_bytes: int = _setting(
        "max_body_bytes",
        _bytes,
        2**30,
        "The largest body of a request. A larger one is answered 413.",
    )
    max_context_entries: int = _setting(
        "max_context_entries",
        _count,
        200_000,
        "The most entries in a request's tar. More are answered 413.",
    )
    upload_timeout: float = _setting(
        "upload_timeout",
        _seconds,
        60.0,
        """How long an upload may pause before it is answered 408. So is an upload that takes more
        than twice this time plus 1 s for each KiB.""",
    )
    build_timeout: float = _setting(
        "build_timeout", _seconds, 1800.0, "How long a build may take, including the push."
    )
    drain_delay: float = _setting(
        "drain_delay",
        _seconds,
        5.0,
        """After SIGTERM: how long the builder still accepts requests, until a Service has stopped
        sending them.""",
    )
    drain_timeout: float = _setting(
        "drain_timeout",
        _seconds,
        300.0,
        "After `drain_delay`: how long running builds may continue.",
    )
    log_prefixes: LogPrefixes = _setting(
        "log_prefixes",
        _log_prefixes,
        LogPrefixes.FULL,
        """The beginning of each log line: `full` (kind and time, as in pro-builder's API
        document), `time` (as in pro-builder 0.5.3 and newer) or `none`. `true` means `full`,
        `false` means `none`.""",
    )
    spool_dir: Path = _setting(
        "spool_dir",
        Path,
        Path("/tmp"),  # noqa: S108 (its files are unlinked from their first moment)
        "The directory for large request bodies, which are files without a name.",
    )
    max_spool_bytes: int = _setting(
        "max_spool_bytes",
        _bytes,
        0,
        """The most bytes of all bodies there together. Beyond it, a request is answered 507. 0:
        no limit.""",
    )
    nats_url: str = _setting(
        "nats_url",
        _nats,
        "",
        """Where queued builds are kept: `embedded` (a nats-server of the builder's own), or NATS
        with JetStream, `nats://host:port` or `tls://host:port`; several, separated by commas, are
        one cluster. Needs the extra `queue`. Empty: no build outlives its connection.""",
        secret=True,
    )
    nats_credentials_file: str = _setting(
        "nats_credentials_file",
        _text,
        "",
        "The file of the user's JWT and NKey seed for NATS, as `nsc` writes it. Empty: none.",
    )
    nats_nkey_seed_file: str = _setting(
        "nats_nkey_seed_file",
        _text,
        "",
        "The file of the user's NKey seed for NATS, where there is no JWT. Empty: none.",
    )
    nats_ca_file: str = _setting(
        "nats_ca_file",
        _text,
        "",
        "The CA that signed the certificate of NATS. Empty: the system's, where the URL has tls.",
    )
    nats_cert_file: str = _setting(
        "nats_cert_file", _text, "", "The builder's certificate for NATS. Empty: none."
    )
    nats_key_file: str = _setting("nats_key_file", _text, "", "That certificate's key.")
    nats_replicas: int = _setting(
        "nats_replicas",
        _replicas,
        1,
        """On how many servers of the NATS cluster each queued build is kept: 1, 3 or 5. With 1, a
        lost disk of that server loses builds that were accepted.""",
    )
    max_queued: int = _setting(
        "max_queued",
        _count,
        10_000,
        """The most builds in the queue, over all builders: those that wait, and those of them that
        run. Another one is answered 429, before its body is stored. 0: no limit.""",
    )
    store_url: str = _setting(
        "store_url",
        _text,
        "",
        """Where bodies of queued builds and logs of ended ones are kept: `file:///DIRECTORY`,
        `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`. All builders of one
        queue need the same. Empty: beside the embedded queue.""",
    )
    history: float = _setting(
        "history",
        _seconds,
        7 * 86400.0,
        "How long a build can be found, with its log, after it was last changed.",
    )
    keep_bodies: float = _setting(
        "keep_bodies",
        _seconds,
        3600.0,
        """How long the body of an ended build is kept, so that it can be built again. 0: it is
        deleted when the build has ended.""",
    )
    max_store_bytes: int = _setting(
        "max_store_bytes",
        _bytes,
        0,
        """What bodies of ended builds and logs may take in the store together; beyond it the oldest
        are deleted. 0: no limit.""",
    )
    otlp_endpoint: str = _setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        _text,
        "",
        """The OpenTelemetry collector that receives spans, `http://host:4318`. It needs the extra
        `otel`. Empty: no spans are sent.""",
    )
    allowed_frontends: tuple[str, ...] = _setting(
        "allowed_frontends",
        _frontends,
        ("docker/dockerfile", "docker/dockerfile-upstream"),
        """Images that a `# syntax=` line or BUILDKIT_SYNTAX may name, comma separated, without
        tags. With `NAME@sha256:…`, that image is used for every tag. With `NAME=built-in`,
        BuildKit's own frontend is used instead. Empty: no image is allowed.""",
    )

    local_sources: bool = _setting(
        "local_sources",
        _flag,
        False,
        """Whether ADD, which BuildKit fetches itself, may name BuildKit's own 127.0.0.1,
        link-local addresses, and metadata services.""",
    )
    allowed_caches: tuple[str, ...] = _setting(
        "allowed_caches",
        _words,
        (),
        """Repositories that a request's `cacheFrom` and `cacheTo` may name, including those below
        them, comma separated; `*` allows all. BuildKit trusts what is in a cache, and a shared
        BuildKit uses it for other builds too. Empty: none.""",
    )
    allowed_context_images: tuple[str, ...] = _setting(
        "allowed_context_images",
        _words,
        (),
        """Repositories of images that a request's named contexts may be, including those below
        them, comma separated; `*` allows all. Empty: only folders of the request.""",
    )
    sbom_generator: str = _setting(
        "sbom_generator",
        _text,
        "",
        """The image that makes the SBOM if a request asks for one with `attest`, such as
        `docker.io/docker/buildkit-syft-scanner:stable-1`. Empty: such requests are refused.""",
    )

    buildkit_cache_size: int = _setting(
        "buildkit_cache_size",
        _bytes,
        20 * 2**30,
        "The most disk space for the build cache.",
    )
    buildkit_memory: int = _setting(
        "buildkit_memory",
        _bytes,
        0,
        """The most memory for BuildKit itself, without RUN steps, if it runs as root. Beyond it
        the kernel kills BuildKit, and the builder restarts it. 0: half of the memory.""",
    )
    buildkit_log_level: str = _setting(
        "buildkit_log_level",
        _log_level,
        "info",
        "The lowest level that BuildKit logs: `debug`, `info`, `warn` or `error`.",
    )
    registry_mirrors: tuple[tuple[str, str], ...] = _setting(
        "registry_mirrors",
        _mirrors,
        (),
        """Mirrors that BuildKit asks before the registry itself, comma separated:
        `docker.io=mirror.internal:5000,ghcr.io=mirror.internal:5000/ghcr`. No build may push to a
        repository there that holds the other registry's images, also with `buildkit_url`.""",
    )
    plain_http_registries: tuple[str, ...] = _setting(
        "plain_http_registries",
        _registries,
        (),
        """Registries and mirrors with plain HTTP, comma separated. Those on 127.0.0.1 need not be
        named.""",
    )
    registry_authorities: tuple[tuple[str, str], ...] = _setting(
        "registry_authorities",
        _pairs,
        (),
        """PEM files of authorities that sign registries' certificates, in addition to the
        system's, comma separated: `registry.internal:5000=/etc/registry-ca.crt`.""",
    )
    run_dns: tuple[str, ...] = _setting(
        "run_dns",
        _addresses,
        (),
        """DNS servers of RUN steps, comma separated. Empty: this host's servers, including one on
        127.0.0.1 if steps can reach it.""",
    )
    step_log_max_size: int = _setting(
        "BUILDKIT_STEP_LOG_MAX_SIZE",
        _log_limit,
        2 * 2**20,
        """The most bytes of each step's standard output, and of its standard error. Beyond it the
        output is clipped, and the log says so. -1: no limit.""",
    )
    step_log_max_speed: int = _setting(
        "BUILDKIT_STEP_LOG_MAX_SPEED",
        _log_limit,
        -1,
        """The most bytes of this output in a second, which BuildKit by default limits to 200 KiB.
        -1: no limit.""",
    )
    buildkit_config: str = _setting(
        "buildkit_config",
        _text,
        "",
        """A file with more of `buildkitd.toml`. It overrides the settings above, and may not set
        what the builder sets itself.""",
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

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], **flags: Any) -> Settings:
        """Read the variables; flags that are not None override them.

        Raises:
            SettingsError: a value is invalid; the text names the variable and valid values.
        """
        values: dict[str, Any] = {}
        for setting in fields(cls):
            variable = setting.metadata["variable"]
            text = environment.get(variable)
            # pro-builder's charts set unused variables to ""; for a list, "" is a value.
            if text is None or (not text and setting.metadata["parse"] not in _LISTS):
                continue
            try:
                values[setting.name] = setting.metadata["parse"](text)
            except ValueError as error:
                shown = repr(text) if setting.repr else "…"
                raise SettingsError(f"{variable}={shown}: {_reason(error)}") from error
        values |= {name: value for name, value in flags.items() if value is not None}
        return cls(**values)


_LISTS: Final = (
    _text,
    _words,
    _frontends,
    _networks,
    _mirrors,
    _pairs,
    _registries,
    _addresses,
    CallbackHosts.parse,
)
"""Parsers for which "" is a value, and does not mean the default."""


def _reason(error: ValueError) -> str:
    return "must be a whole number" if "invalid literal" in str(error) else str(error)


OWN_BUILDKIT: Final = (
    "BUILDKIT_STEP_LOG_MAX_SIZE",
    "BUILDKIT_STEP_LOG_MAX_SPEED",
    "buildkit_cache_size",
    "buildkit_config",
    "buildkit_log_level",
    "buildkit_memory",
    "plain_http_registries",
    "registry_authorities",
    "run_dns",
)
"""Variables for a BuildKit of the builder's own; with `buildkit_url` they have no effect."""


def near_misses(environment: Mapping[str, str], others: Iterable[str] = ()) -> dict[str, str]:
    """Variables that are not read, but look like one that is: `MAX_INFLIGHT`, `max_inflght`.

    Args:
        environment: only the names are read.
        others: variables that are read elsewhere.

    Returns:
        Each such name, and the one that was probably meant.
    """
    read = {setting.metadata["variable"] for setting in fields(Settings)} | set(others)
    plain = {_plain(name): name for name in sorted(read)}
    # Other programs have variables in upper case, whose names may be similar and yet correct.
    own = {key: name for key, name in plain.items() if name.islower()}
    found = {}
    for name in environment.keys() - read:
        key = _plain(name)
        near = [key] if key in plain else get_close_matches(key, own, n=1, cutoff=_LIKENESS)
        if near:
            found[name] = plain[near[0]]
    return found


_LIKENESS: Final = 0.86
"""One letter off in a name of seven, two in one of fourteen (difflib's ratio)."""


def _plain(name: str) -> str:
    """A name without case and dashes: `maxInflight` and `MAX-INFLIGHT` are equal."""
    return re.sub(r"[-_.]", "", name).lower()
