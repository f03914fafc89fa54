"""The DNS servers of RUN steps, if BuildKit's default would be wrong.

BuildKit removes servers on the loopback interface from a step's resolv.conf. If none is left, it
uses Google's (executor/oci/resolvconf.go). Then internal names are not found, and queries leave the
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import structlog

from function_builder.engine.namespaces import Network

_log = structlog.get_logger(__name__)

_RESOLV_CONF: Final = "etc/resolv.conf"
_SYSTEMD: Final = "run/systemd/resolve/resolv.conf"
"""The file with the servers that systemd-resolved asks."""


def step_nameservers(network: Network, root: Path = Path("/")) -> Sequence[str]:
    """The DNS servers to set in buildkitd.toml; empty: BuildKit's default is correct.

    Args:
        network: of RUN steps; BuildKit is in the host's.
        root: the directory to use as `/`.
    """
    servers = _nameservers(root / _RESOLV_CONF)
    elsewhere = [server for server in servers if not _is_loopback(server)]
    if servers == elsewhere and servers:
        return ()
    if servers and network is Network.HOST:
        # Steps share the host's loopback interface.
        return servers
    if elsewhere:
        return ()
    upstream = [each for each in _nameservers(root / _SYSTEMD) if not _is_loopback(each)]
    if servers and upstream:
        return upstream
    _log.warning(
        "RUN steps ask public DNS servers (8.8.8.8), because they cannot reach this host's: "
        "set run_dns",
        resolv_conf=servers,
    )
    return ()


def _nameservers(path: Path) -> list[str]:
    """The addresses of resolv.conf(5)."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]


def _is_loopback(server: str) -> bool:
    try:
        return ip_address(server).is_loopback
    except ValueError:
        return False
