"""The configuration of an embedded BuildKit: its buildkitd.toml, and limits of cache and logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from function_builder.engine.toml import Table, dumps, merged

_TRACES_SOCKET: Final = "traces.sock"


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """The limits of BuildKit's garbage collector; sizes in the form of buildkitd.toml.

    With these limits, BuildKit's default policy also removes contexts (`source.local`) and cache
    mounts that were not used for two days, if they exceed 512 MB.

    Attributes:
        reserved: the size that is never collected.
        most: the largest size of the cache.
        free: the free disk space that the collector tries to keep.
    """

    reserved: str = "2GB"
    most: str = "20GB"
    free: str = "10%"

    @classmethod
    def within(cls, size: int) -> Self:
        """Limits for a cache of `size` bytes, of which at most a fifth is never collected."""
        return cls(reserved=str(min(2 * 2**30, size // 5)), most=str(size))


@dataclass(frozen=True, slots=True)
class StepLogLimits:
    """The limits of a RUN step's output, in bytes of each stream; -1 is no limit.

    Beyond a limit the log has `[output clipped, log limit … reached]`, and, if the step fails, the
    stream's last 256 KiB (BuildKit's `util/progress/logs/logs.go`).

    Attributes:
        size: in total.
        speed: in a second. BuildKit's own default is 200 KiB, which a step that prints 100,000
            lines at once exceeds.
    """

    size: int = 2 * 2**20
    speed: int = -1

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of buildkitd."""
        return {
            "BUILDKIT_STEP_LOG_MAX_SIZE": str(self.size),
            "BUILDKIT_STEP_LOG_MAX_SPEED": str(self.speed),
        }


@dataclass(frozen=True, slots=True)
class BuildKitConfig:
    """The configuration of an embedded buildkitd: its buildkitd.toml and its environment.

    Attributes:
        mirrors: registry host -> hosts that BuildKit asks first.
        plain_http: registry hosts with plain HTTP.
        authorities: registry host -> PEM files of the authorities that may sign its certificate,
            in addition to the system's. BuildKit then uses TLS for this host, also on the loopback
            interface, where its default is plain HTTP.
        cache: the limits of the build cache.
        nameservers: the DNS servers of RUN steps; empty: those of this host.
        log_level: the lowest level that it logs: `debug`, `info`, `warn` or `error`.
        step_log: the limits of a step's output.
        extra: more of buildkitd.toml, which overrides all of these (`toml.read_config`).
    """

    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    plain_http: Sequence[str] = ()
    authorities: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    cache: CacheLimits = field(default_factory=CacheLimits)
    nameservers: Sequence[str] = ()
    log_level: str = "info"
    step_log: StepLogLimits = field(default_factory=StepLogLimits)
    extra: Table = field(default_factory=dict)

    @property
    def names_servers(self) -> bool:
        """Whether the DNS servers of RUN steps are set."""
        return bool(self.nameservers or self.extra.get("dns", {}).get("nameservers"))

    def toml(
        self,
        *,
        root: Path,
        socket: Path,
        process_sandbox: bool,
        plugins: Path | None = None,
        step_group: str = "",
        json_log: bool = False,
    ) -> str:
        """The text of buildkitd.toml (BuildKit's docs/buildkitd.toml.md).

        Args:
            root: the daemon's directory.
            socket: the path of its socket.
            process_sandbox: whether RUN steps have their own PID namespace.
            plugins: the directory of CNI's plugins, for RUN steps with their own network.
            step_group: the parent control group of RUN steps.
            json_log: whether each line of its log is a JSON object.

        Raises:
            EngineError: `extra` has a table where BuildKit has a value, or the other way around.
        """
        worker: dict[str, Any] = {
            "enabled": True,
            "noProcessSandbox": not process_sandbox,
            "gc": True,
            "reservedSpace": self.cache.reserved,
            "maxUsedSpace": self.cache.most,
            "minFreeSpace": self.cache.free,
        }
        if plugins is not None:
            worker |= {"networkMode": "bridge", "cniBinaryPath": plugins}
        if step_group:
            worker["defaultCgroupParent"] = step_group
        config: dict[str, Any] = {
            "root": root,
            "log": {"format": "json" if json_log else "text", "level": self.log_level},
            "grpc": {"address": [f"unix://{socket}"]},
            # The default is one path in /run, which another daemon may use.
            "otel": {"socketPath": socket.with_name(_TRACES_SOCKET)},
            # Requests get no devices.
            "cdi": {"disabled": True},
            "history": {"maxEntries": 50},
            "worker": {"containerd": {"enabled": False}, "oci": worker},
            "registry": self._registries(),
        }
        if self.nameservers:
            config["dns"] = {"nameservers": self.nameservers}
        return dumps(merged(config, self.extra))

    def _registries(self) -> dict[str, Any]:
        registries: dict[str, Any] = {}
        for host in sorted({*self.mirrors, *self.plain_http, *self.authorities}):
            registry = registries[host] = {}
            if host in self.mirrors:
                registry["mirrors"] = self.mirrors[host]
            if host in self.plain_http or host in self.authorities:
                registry["http"] = host in self.plain_http
            if host in self.authorities:
                registry["ca"] = self.authorities[host]
        return registries
