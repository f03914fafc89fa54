"""A network for BuildKit alone, without the host's loopback interface and the clouds' metadata.

BuildKit fetches `ADD` itself, and a source policy only sees the address in the Dockerfile. In a
network namespace of its own, BuildKit's 127.0.0.1 is not the host's, whatever a name or a redirect
leads to. slirp4netns carries the packets in user space, so that the host gets no interface, no
route and no firewall rule that would have to be removed.

rootlesskit makes such a namespace for an ordinary user (`namespaces.py`), `OwnNetwork` for root.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final, Self

from aiobuildkit.hostport import HostPort
from function_builder.contract.public_addresses import METADATA, is_loopback
from function_builder.engine.errors import StartFailed, ToolMissing
from function_builder.engine.process import Program, SupervisedServer, child_environment
from function_builder.engine.registry import Registry
from function_builder.engine.tools import find_tool

_TUN: Final = Path("/dev/net/tun")
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_INTERFACE: Final = "tap0"
_DNS_SERVER: Final = "10.0.2.3"
"""slirp4netns forwards its queries to the host's servers, also to one on 127.0.0.1."""

_MTU: Final = 65520
"""The throughput depends on the packet size (rootlesskit's docs/network.md)."""

# slirp4netns carries no IPv6, so IPv6 addresses are unreachable without a route.
_UNREACHABLE: Final = (
    *(str(network) for network in METADATA if isinstance(network, IPv4Network)),
    "169.254.0.0/16",
)

ROOTLESSKIT_FLAGS: Final = ("--net=slirp4netns", "--disable-host-loopback", f"--mtu={_MTU}")
"""What makes such a network for an ordinary user."""


class OwnNetwork(SupervisedServer):
    """A network namespace of root's, with slirp4netns, during an `async with`.

    This process keeps the namespace open by a file descriptor, so that it ends with this process
    and the programs in it.

    Args:
        log: the file for slirp4netns's output; None: each line goes to our log.
    """

    def __init__(self, log: Path | None = None) -> None:
        super().__init__()
        self._log = log
        self._namespace = -1

    @property
    def enter(self) -> Sequence[str]:
        """The command that runs another one in the namespace."""
        return (str(find_tool("nsenter")), f"--net={self._path}", "--")

    async def __aenter__(self) -> Self:
        """Make the namespace, and wait until packets leave it.

        Raises:
            ToolMissing: slirp4netns is not installed, or there is no /dev/net/tun.
            StartFailed: the namespace was not made, or slirp4netns ended.
        """
        slirp4netns = find_tool("slirp4netns")
        if not _TUN.exists():
            raise ToolMissing(
                f"{_TUN} is missing: `modprobe tun` (in a container: --device {_TUN})"
            )
        self._namespace = await _new_namespace()
        try:
            await self._start(self._program(slirp4netns))
        except BaseException:
            os.close(self._namespace)
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop slirp4netns; the namespace ends with the last program in it."""
        await super().__aexit__(*exc)
        os.close(self._namespace)

    @property
    def _path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._namespace}"

    def _program(self, slirp4netns: Path) -> Program:
        return Program(
            name="slirp4netns",
            argv=(
                str(slirp4netns),
                "--configure",
                "--disable-host-loopback",
                f"--mtu={_MTU}",
                # It reads packets of any RUN step. So it has no files, few rights and few syscalls.
                "--enable-sandbox",
                "--enable-seccomp",
                "--netns-type=path",
                self._path,
                _INTERFACE,
            ),
            ready=self._has_route,
            prepare=lambda: None,
            environment={},
            log=self._log,
            stop_timeout=3,
        )

    async def _has_route(self) -> bool:
        """Whether the default route exists, which slirp4netns makes last."""
        process = await asyncio.create_subprocess_exec(
            *(*self.enter, "cat", "/proc/net/route"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=child_environment(),
        )
        routes, _ = await process.communicate()
        return f"{_INTERFACE}\t00000000\t".encode() in routes


async def _new_namespace() -> int:
    """A file descriptor of a new network namespace.

    Raises:
        StartFailed: the kernel refused it.
    """
    # Python has no os.unshare before 3.12. `cat` answers as soon as it is in the namespace.
    holder = await asyncio.create_subprocess_exec(
        *(str(find_tool("unshare")), "--net", "--", "cat"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(),
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(b"\n")
    try:
        if await holder.stdout.readline():
            return os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY)
    finally:
        holder.stdin.close()
        _, said = await holder.communicate()
    reason = said.decode(errors="replace").strip()
    raise StartFailed(f"no network namespace can be made here: {reason}")


def run_inside(
    command: Sequence[str], *, resolv_conf: Path | None = None, registry: Registry | None = None
) -> Sequence[str]:
    """A command that prepares such a network from the inside, and then becomes another one.

    Args:
        command: the other one.
        resolv_conf: where to write a resolv.conf for it; None if it has the right one.
        registry: its images are also served in this network, at the registry's own address if that
            is a loopback address.
    """
    lines = [f"ip route replace prohibit {network}" for network in _UNREACHABLE]
    find_tool("ip")
    if resolv_conf is not None and _RESOLV_CONF.exists():
        resolv_conf.write_text("\n".join(_resolver_lines(_RESOLV_CONF)))
        lines.append(f"mount --bind {shlex.quote(str(resolv_conf))} {_RESOLV_CONF}")
    if registry is not None and is_loopback(HostPort.parse(registry.address).host):
        lines += _served_too(registry)
    lines.append('exec "$@"')
    return (str(find_tool("sh")), "-ec", "\n".join(lines), "sh", *command)


def _resolver_lines(host: Path) -> Iterator[str]:
    """The lines of resolv.conf(5) with slirp4netns's server instead of the host's."""
    for line in host.read_text(errors="replace").splitlines():
        if not line.lstrip().startswith("nameserver"):
            yield line
    yield f"nameserver {_DNS_SERVER}\n"


def _served_too(registry: Registry) -> Iterator[str]:
    """Lines that run a second process of the registry, on the same blobs, and wait for it.

    It listens in this network, and so needs no way to the host's loopback interface.
    """
    port = HostPort.parse(registry.address).port
    yield f"(while :; do {shlex.join(registry.command)} || :; sleep 1; done) &"
    # Linux's proc_net_tcp.txt; 0A is LISTEN.
    listens = f":{port:04X} [0-9A-F]*:0000 0A "
    yield f"until grep -qs '{listens}' /proc/net/tcp /proc/net/tcp6; do sleep 0.02; done"
