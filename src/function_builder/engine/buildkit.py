"""An embedded BuildKit: one supervised buildkitd, as root or rootless."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

import structlog

from function_builder.engine import namespaces
from function_builder.engine.address import ensure_silent, socket_directory, unix_answers
from function_builder.engine.buildkit_config import BuildKitConfig
from function_builder.engine.cgroups import (
    ControlGroup,
    StepLimits,
    four_fifths,
    half,
    own_memory_limit,
)
from function_builder.engine.dns import step_nameservers
from function_builder.engine.errors import RootlessRefused
from function_builder.engine.namespaces import BuildKitNetwork, Namespaces, Network
from function_builder.engine.own_network import OwnNetwork, run_inside
from function_builder.engine.process import Program, SupervisedServer
from function_builder.engine.registry import Registry
from function_builder.engine.tools import find_plugins, find_tool

_log = structlog.get_logger(__name__)

_SOCKET = "buildkitd.sock"
_ROOTLESSKIT = "rootlesskit"


class BuildKitDaemon(SupervisedServer):
    """A supervised buildkitd, which runs during an `async with`.

    Args:
        root: its directory: cache, configuration, socket (unless the path would be too long).
        config: its configuration.
        rootless: run it under rootlesskit; the default for every user except root.
        network: the network of its RUN steps; `slirp4netns` needs rootlesskit, `bridge` needs root.
        own_network: its own network; `isolated` with `slirp4netns`.
        registry: one on this host that it reaches also if it is isolated.
        limits: of all its RUN steps together, if root may make control groups; by default four
            fifths of the memory.
        memory: the most bytes of BuildKit itself, if root may make control groups; by default half
            of the memory.
        log: the file for its output; None: each line goes to our log.
    """

    def __init__(
        self,
        root: Path,
        *,
        config: BuildKitConfig | None = None,
        rootless: bool | None = None,
        network: Network = Network.HOST,
        own_network: BuildKitNetwork = BuildKitNetwork.HOST,
        registry: Registry | None = None,
        limits: StepLimits | None = None,
        memory: int = 0,
        log: Path | None = None,
    ) -> None:
        super().__init__()
        self._root = root.absolute()
        self._limits = limits or four_fifths()
        key = hashlib.sha256(os.fsencode(self._root)).hexdigest()[:16]
        self._steps = ControlGroup(f"function-builder-{key}")
        self._memory = memory or half()
        self._own = ControlGroup(f"function-builder-{key}-buildkitd")
        self._config = config or BuildKitConfig()
        self._rootless = os.geteuid() != 0 if rootless is None else rootless
        self._network = network
        self._isolated = own_network is BuildKitNetwork.ISOLATED or network is Network.SLIRP4NETNS
        self._registry = registry
        self._resources = AsyncExitStack()
        self._log = log
        self._sockets = socket_directory(self._root, f"{_ROOTLESSKIT}/{_SOCKET}")
        self._kills = 0

    @property
    def address(self) -> str:
        """Its address, `unix:///path`."""
        return f"unix://{self._sockets / _SOCKET}"

    async def __aenter__(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            AddressTaken: a daemon already uses this directory.
            ToolMissing: a program that it needs is not installed.
            RootlessRefused: this user may not use user namespaces, or not this network.
            StartFailed: buildkitd ended, or did not answer.
        """
        if self._network is (Network.BRIDGE if self._rootless else Network.SLIRP4NETNS):
            other, who = ("slirp4netns", "root") if self._rootless else ("bridge", "ordinary users")
            raise RootlessRefused(f"the network {self._network} is for {who}: use {other}")
        if self._rootless:
            state = self._sockets / _ROOTLESSKIT
            within = await namespaces.for_ordinary_user(state, isolated=self._isolated)
            await self._start(self._program(within))
            return self
        async with AsyncExitStack() as stack:
            own = None
            if self._isolated:
                log = self._log and self._log.with_name("slirp4netns.log")
                own = await stack.enter_async_context(OwnNetwork(log))
            await self._start(self._program(namespaces.for_root(own)))
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop it and all its processes."""
        await super().__aexit__(*exc)
        await self._resources.aclose()
        if not self._rootless:
            self._steps.remove()
            self._own.remove()

    def _step_group(self) -> str:
        """The name of the group that limits RUN steps; empty if it cannot be made."""
        if self._rootless:
            return ""
        try:
            self._steps.make(memory=self._limits.memory, tasks=self._limits.tasks)
        except OSError as error:
            reason = f"{error.strerror}: {error.filename}"
            _log.warning("RUN steps have no limit of memory and processes", reason=reason)
            return ""
        return self._steps.name

    def _within_memory(self) -> Sequence[str]:
        """The command that runs another one with BuildKit's own memory limit."""
        if self._rootless:
            if own_memory_limit() is None:
                _log.warning("BuildKit has no memory limit", reason="it does not run as root")
            return ()
        try:
            self._own.make(memory=self._memory)
        except OSError as error:
            reason = f"{error.strerror}: {error.filename}"
            _log.warning("BuildKit has no memory limit", reason=reason)
            return ()
        enter = 'echo $$ > "$0" && exec "$@"'
        return (str(find_tool("sh")), "-c", enter, str(self._own.processes))

    def _why_died(self) -> str:
        kills = self._own.memory_kills()
        known, self._kills = self._kills, kills
        return f"its memory limit of {self._memory >> 20} MiB" if kills > known else ""

    def _program(self, within: Namespaces) -> Program:
        find_tool("runc")
        socket = self._sockets / _SOCKET
        config = self._root / "buildkitd.toml"
        runtime = self._root / "runtime"
        runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        told = self._config
        # In its own network, BuildKit's resolv.conf is right for steps too.
        if not told.names_servers and not self._isolated:
            told = replace(told, nameservers=step_nameservers(self._network))
        config.write_text(
            told.toml(
                root=self._root / "state",
                socket=socket,
                process_sandbox=within.own_processes,
                plugins=find_plugins() if self._network is Network.BRIDGE else None,
                step_group=self._step_group(),
                json_log=self._log is None,
            )
        )
        command: Sequence[str] = (str(find_tool("buildkitd")), "--config", str(config))
        if self._isolated:
            # rootlesskit makes a resolv.conf itself.
            resolv_conf = None if self._rootless else self._root / "resolv.conf"
            command = run_inside(command, resolv_conf=resolv_conf, registry=self._registry)
        return Program(
            name="buildkitd",
            argv=(*self._within_memory(), *within.argv, *command),
            ready=lambda: unix_answers(socket),
            # Otherwise another daemon's answer would count as ours. buildkitd replaces a stale
            # socket.
            prepare=lambda: ensure_silent(socket),
            environment={
                **self._config.step_log.environment,
                # Go then collects garbage more often before the kernel kills BuildKit.
                "GOMEMLIMIT": str(self._memory * 9 // 10),
                # The directory of runc's state, because /run/runc belongs to root.
                **({"XDG_RUNTIME_DIR": str(runtime)} if self._rootless else {}),
            },
            log=self._log,
            # buildkitd waits until the last client disconnects, which may never happen.
            stop_timeout=3,
            # The second signal makes buildkitd exit at once.
            signal_group=not within.passes_signals,
            why_died=self._why_died,
        )
