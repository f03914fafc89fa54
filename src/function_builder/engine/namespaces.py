"""The namespaces that a buildkitd of ours runs in.

With a PID namespace of its own all that it started, containers included, ends with its first
process, even when we are killed; and RUN steps cannot see it, let alone signal it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import structlog

from function_builder.engine.errors import RootlessRefused
from function_builder.engine.process import child_environment
from function_builder.engine.tools import find_tool

logger = structlog.get_logger(__name__)


class Network(StrEnum):
    """What RUN steps reach over the network."""

    HOST = "host"
    """All that the host does, its loopback interface included."""
    BRIDGE = "bridge"
    """All but the loopback interface; root's BuildKit sets it up for each step, by CNI."""
    SLIRP4NETNS = "slirp4netns"
    """The same for an ordinary user's BuildKit, which itself is in that network too."""


_BY_ROOTLESSKIT = {
    Network.HOST: ("--net=host",),
    # The size of a packet is what its throughput hangs on (rootlesskit's docs/network.md).
    Network.SLIRP4NETNS: ("--net=slirp4netns", "--disable-host-loopback", "--mtu=65520"),
}


@dataclass(frozen=True, slots=True)
class Namespaces:
    """How to enter them.

    Attributes:
        argv: the command that runs another one in them.
        own_processes: a PID namespace and its /proc are among them.
        passes_signals: the command passes a signal on to the other one.
    """

    argv: Sequence[str]
    own_processes: bool
    passes_signals: bool


def for_root() -> Namespaces:
    """Those that root enters by `unshare`.

    Raises:
        ToolMissing: there is no unshare.
    """
    # /proc is mounted again because buildkitd and runc look themselves up in it by process id.
    enter = ("--pid", "--mount-proc", "--fork", "--kill-child=KILL", "--")
    argv = (str(find_tool("unshare")), *enter)
    return Namespaces(argv, own_processes=True, passes_signals=False)


async def for_ordinary_user(state: Path, network: Network = Network.HOST) -> Namespaces:
    """Those that an ordinary user enters by rootlesskit, which keeps its own files in `state`.

    Raises:
        ToolMissing: rootlesskit, newuidmap or slirp4netns is not installed.
        RootlessRefused: user namespaces are forbidden, or no ids are set aside for the user.
    """
    find_tool("newuidmap")
    rootlesskit = str(find_tool("rootlesskit"))
    if await _complaint(str(find_tool("unshare")), "--user", "true"):
        raise RootlessRefused(
            "user namespaces are forbidden here: run as root, or allow them (sysctl"
            " user.max_user_namespaces, kernel.unprivileged_userns_clone,"
            " kernel.apparmor_restrict_unprivileged_userns)"
        )
    if network is Network.SLIRP4NETNS:
        find_tool("slirp4netns")
    enter = [*_BY_ROOTLESSKIT[network], "--copy-up=/etc", "--copy-up=/run"]
    # A container's masked /proc keeps even root of a user namespace from mounting another.
    own_processes = not await _complaint(rootlesskit, *enter, "--pidns", "true")
    if own_processes:
        enter.append("--pidns")
    elif complaint := await _complaint(rootlesskit, *enter, "true"):
        raise RootlessRefused(
            "rootlesskit cannot start (has this user lines in /etc/subuid and /etc/subgid?):"
            f" {complaint}"
        )
    else:
        logger.warning("RUN steps see BuildKit's processes: no /proc can be mounted here")
    argv = (rootlesskit, "--state-dir", str(state), *enter)
    return Namespaces(argv, own_processes=own_processes, passes_signals=True)


async def _complaint(*argv: str) -> str:
    """Run a command; its last line of output if it failed, else nothing."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=child_environment(),
    )
    output, _ = await process.communicate()
    if process.returncode == 0:
        return ""
    return (output.decode(errors="replace").strip() or "no reason given").splitlines()[-1]
