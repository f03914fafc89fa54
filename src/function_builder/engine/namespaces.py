"""The namespaces of our buildkitd.

With its own PID namespace, all its processes, including containers, end with its first process,
even if the builder is killed. RUN steps can neither see nor signal buildkitd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import structlog

from function_builder.engine.errors import RootlessRefused
from function_builder.engine.own_network import ROOTLESSKIT_FLAGS, OwnNetwork
from function_builder.engine.process import child_environment
from function_builder.engine.tools import find_tool

_log = structlog.get_logger(__name__)


class Network(StrEnum):
    """The network of RUN steps."""

    HOST = "host"
    """The host's network, including its loopback interface."""
    BRIDGE = "bridge"
    """Without the host's loopback interface; root's BuildKit sets it up for each step with CNI."""
    SLIRP4NETNS = "slirp4netns"
    """An ordinary user's: BuildKit's network, which is then `BuildKitNetwork.ISOLATED`."""


class BuildKitNetwork(StrEnum):
    """The network of BuildKit itself, and of RUN steps with `Network.HOST`."""

    HOST = "host"
    """The host's network, including its loopback interface."""
    ISOLATED = "isolated"
    """A network of its own (`own_network.py`)."""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The command that enters the namespaces.

    Attributes:
        argv: the command that runs another one in them.
        own_processes: whether they include a PID namespace with its /proc.
        passes_signals: whether the command forwards signals to the other one.
    """

    argv: Sequence[str]
    own_processes: bool
    passes_signals: bool


def for_root(network: OwnNetwork | None = None) -> Namespaces:
    """The namespaces for root, with `unshare`.

    Args:
        network: BuildKit's; None: the host's.

    Raises:
        ToolMissing: unshare is not installed.
    """
    # /proc is mounted again, because buildkitd and runc look up their own process IDs in it.
    enter = ("--pid", "--mount-proc", "--fork", "--kill-child=KILL", "--")
    argv = (*(network.enter if network else ()), str(find_tool("unshare")), *enter)
    return Namespaces(argv, own_processes=True, passes_signals=False)


async def for_ordinary_user(state: Path, *, isolated: bool = False) -> Namespaces:
    """The namespaces without root, with rootlesskit, whose files are in `state`.

    Args:
        state: the directory.
        isolated: whether they include a network namespace.

    Raises:
        ToolMissing: rootlesskit, newuidmap or slirp4netns is not installed.
        RootlessRefused: user namespaces are forbidden, or the user has no ID range.
    """
    find_tool("newuidmap")
    rootlesskit = str(find_tool("rootlesskit"))
    if await _complaint(str(find_tool("unshare")), "--user", "true"):
        raise RootlessRefused(
            "user namespaces are forbidden here: run as root, or allow them (sysctl"
            " user.max_user_namespaces, kernel.unprivileged_userns_clone,"
            " kernel.apparmor_restrict_unprivileged_userns)"
        )
    if isolated:
        find_tool("slirp4netns")
    enter = [
        *(ROOTLESSKIT_FLAGS if isolated else ("--net=host",)),
        "--copy-up=/etc",
        "--copy-up=/run",
    ]
    # With a masked /proc in a container, root of a user namespace cannot mount another one.
    own_processes = not await _complaint(rootlesskit, *enter, "--pidns", "true")
    if own_processes:
        enter.append("--pidns")
    elif complaint := await _complaint(rootlesskit, *enter, "true"):
        raise RootlessRefused(
            "rootlesskit cannot start (has this user lines in /etc/subuid and /etc/subgid?):"
            f" {complaint}"
        )
    else:
        _log.warning("RUN steps see BuildKit's processes: no /proc can be mounted here")
    argv = (rootlesskit, "--state-dir", str(state), *enter)
    return Namespaces(argv, own_processes=own_processes, passes_signals=True)


async def _complaint(*argv: str) -> str:
    """Run a command; return its last line of output if it failed, else an empty string."""
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
