"""Which BuildKits are used, and a BuildKit of the builder's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from function_builder.settings import values
from function_builder.settings.values import setting

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


@dataclass(frozen=True, kw_only=True)
class BuildKitSettings:
    """A part of `Settings`."""

    buildkit_url: str = setting(
        "buildkit_url",
        values.text,
        "",
        """BuildKit's address, `unix:///path` or `tcp://host:port`; several, separated by commas;
        or `dns://name:port`, where each address of the name is a BuildKit. Empty: the builder
        starts a BuildKit of its own.""",
    )
    buildkit_server_name: str = setting(
        "buildkit_server_name",
        values.text,
        "",
        "The name in BuildKit's TLS certificate, if it is not the host of `buildkit_url`.",
    )
    tls_ca: str = setting(
        "tlscacert",
        values.text,
        "",
        """The CA that signed BuildKit's certificate (flag `--tlscacert`). If none of these three
        is set and BuildKit is on TCP, the builder uses `ca.crt`, `client.crt` and `client.key` in
        `/var/secrets/certs`, if they exist.""",
    )
    tls_cert: str = setting(
        "tlscert",
        values.text,
        "",
        "The builder's client certificate for BuildKit (flag `--tlscert`).",
    )
    tls_key: str = setting(
        "tlskey", values.text, "", "The key of that certificate (flag `--tlskey`)."
    )
    buildkit_cache_size: int = setting(
        "buildkit_cache_size",
        values.size,
        20 * 2**30,
        "The most disk space for the build cache.",
    )
    buildkit_memory: int = setting(
        "buildkit_memory",
        values.size,
        0,
        """The most memory for BuildKit itself, without RUN steps, if it runs as root. Beyond it
        the kernel kills BuildKit, and the builder restarts it. 0: half of the memory.""",
    )
    buildkit_log_level: str = setting(
        "buildkit_log_level",
        values.log_level,
        "info",
        "The lowest level that BuildKit logs: `debug`, `info`, `warn` or `error`.",
    )
    run_dns: tuple[str, ...] = setting(
        "run_dns",
        values.addresses,
        (),
        """DNS servers of RUN steps, comma separated. Empty: this host's servers, including one on
        127.0.0.1 if steps can reach it.""",
    )
    step_log_max_size: int = setting(
        "BUILDKIT_STEP_LOG_MAX_SIZE",
        values.log_limit,
        2 * 2**20,
        """The most bytes of each step's standard output, and of its standard error. Beyond it the
        output is clipped, and the log says so. -1: no limit.""",
    )
    step_log_max_speed: int = setting(
        "BUILDKIT_STEP_LOG_MAX_SPEED",
        values.log_limit,
        -1,
        """The most bytes of this output in a second, which BuildKit by default limits to 200 KiB.
        -1: no limit.""",
    )
    buildkit_config: str = setting(
        "buildkit_config",
        values.text,
        "",
        """A file with more of `buildkitd.toml`. It overrides the settings above, and may not set
        what the builder sets itself.""",
    )
