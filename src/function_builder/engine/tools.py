"""Find the programs that the engine runs.

The order is PATH, then the directories of system programs (which are not on a user's PATH on
Debian), then the cache of compiled programs (engine/programs.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from function_builder.engine.errors import ToolMissing

_SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin")

PLUGIN_DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
"""The directories of CNI's plugins in its documentation, in Debian, and in Fedora."""

_SOURCES = {
    "buildkitd": "run `function-builder setup`, or install BuildKit from https://github.com/moby/buildkit",
    "registry": "run `function-builder setup`, or install https://github.com/distribution/distribution",
    "nats-server": "run `function-builder setup`, or install https://github.com/nats-io/nats-server",
    "runc": "`apt-get install runc`",
    "rootlesskit": "`apt-get install rootlesskit uidmap`, or run as root",
    "git": "`apt-get install git`",
    "iptables": "`apt-get install iptables`",
    "slirp4netns": "`apt-get install slirp4netns`",
    "newuidmap": "`apt-get install uidmap`, or run as root",
    "busybox": "`apt-get install busybox-static`",
    "ip": "`apt-get install iproute2`",
    "nsenter": "`apt-get install util-linux`",
    "unshare": "`apt-get install util-linux`",
    "setpriv": "`apt-get install util-linux`",
    "xz": "`apt-get install xz-utils`",
}


def tools_cache() -> Path:
    """The directory with the newest build of each pinned tool."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "function-builder", "tools", "bin")


def search_path() -> str:
    """The PATH to find programs, which is also the PATH of these programs."""
    own = os.environ.get("PATH", "")
    return os.pathsep.join(filter(None, (own, *_SYSTEM_DIRECTORIES, str(tools_cache()))))


def find_tool(name: str) -> Path:
    """Find the program `name`.

    Raises:
        ToolMissing: it is not installed; the text says how to get it.
    """
    found = shutil.which(name, path=search_path())
    if found is None:
        advice = _SOURCES.get(name, "install it")
        raise ToolMissing(f"{name} is missing: {advice}")
    return Path(found)


def require_tools(names: Iterable[str]) -> None:
    """Find programs, and name all that are missing at once.

    Raises:
        ToolMissing: some are not installed; the text says how to get each.
    """
    missing = []
    for name in names:
        try:
            find_tool(name)
        except ToolMissing as error:
            missing.append(str(error))
    if missing:
        raise ToolMissing("; ".join(missing))


def find_plugins() -> Path:
    """Find the directory of CNI's plugins; BuildKit needs those of a bridge.

    Raises:
        ToolMissing: they are not installed, or iptables, which they run, is not.
    """
    find_tool("iptables")
    for directory in map(Path, PLUGIN_DIRECTORIES):
        if (directory / "bridge").exists():
            return directory
    raise ToolMissing(
        "CNI's plugins are missing: `apt-get install containernetworking-plugins iptables`"
    )
