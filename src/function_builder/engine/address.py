"""Addresses of child programs: whether they are free, and whether a program answers."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import socket
import tempfile
from pathlib import Path
from typing import Any, Final

from aiobuildkit.hostport import HostPort
from function_builder.engine.errors import AddressTaken, EngineError

_BACKLOG: Final = 2048
"""The backlog: connections that wait to be accepted."""

_NO_SUCH_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""Linux's errors if IPv6 is not compiled in, or disabled for the interface."""

# sun_path has 108 bytes, including a terminating zero (unix(7)).
_LONGEST_SOCKET_PATH = 107


def ensure_free(address: str) -> None:
    """Check that no program listens on `address` (host:port).

    Raises:
        AddressTaken: a program does.
        EngineError: it is not an address of this machine, or not permitted for this user.
        ValueError: it is not `host:port`.
    """
    for listener in listeners(HostPort.parse(address)):
        listener.close()


def listeners(address: HostPort) -> list[socket.socket]:
    """Listen on all addresses of a host, as Go's net.Listen does for `:8080`.

    IPv4 and IPv6 have separate sockets, independent of the system's `bindv6only`, because one
    socket for both would report IPv4 clients with IPv6 addresses. A family that the machine does
    not have is left out.

    Raises:
        AddressTaken: another program listens there.
        EngineError: the host is unknown or not this machine's, or the port is not permitted.
    """
    try:
        places = socket.getaddrinfo(
            # 0.0.0.0 means only IPv4, but `::` means the same as an empty host.
            None if address.host in ("", "::") else address.host,
            address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a valid host name"
        raise EngineError(f"{address} cannot be listened on: {reason}") from error
    found: list[socket.socket] = []
    failed: OSError | None = None
    # IPv4 first: with port 0, the other family uses the same port.
    for family, *_, place in sorted(places, key=lambda entry: entry[0]):
        port = found[0].getsockname()[1] if found else address.port
        try:
            found.append(_listener(family, (place[0], port, *place[2:])))
        except OSError as error:
            if error.errno in _NO_SUCH_FAMILY:
                failed = error
                continue
            for other in found:
                other.close()
            if error.errno == errno.EADDRINUSE:
                raise AddressTaken(str(address)) from error
            raise EngineError(f"{address} cannot be listened on: {error.strerror}") from error
    if failed is not None and not found:
        raise EngineError(f"{address} cannot be listened on: {failed.strerror}") from failed
    return found


def _listener(family: int, place: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Without it, connections of an earlier run in TIME_WAIT would block the address.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def ensure_silent(path: Path) -> None:
    """Check that no process answers on the unix socket `path`; a stale socket is allowed.

    Raises:
        AddressTaken: a process answers.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise AddressTaken(f"unix://{path}")


async def tcp_answers(address: str) -> bool:
    """Whether a program accepts a connection to `host:port`."""
    host, port = HostPort.parse(address).local
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def unix_answers(path: Path) -> bool:
    """Whether a program accepts a connection to the unix socket `path`."""
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


def socket_directory(state: Path, longest_name: str) -> Path:
    """A directory for sockets: `state` itself, or one for it with a short path.

    Args:
        state: an absolute directory.
        longest_name: the longest path of a socket below the directory.
    """
    if len(os.fsencode(state / longest_name)) <= _LONGEST_SOCKET_PATH:
        return state
    key = hashlib.sha256(os.fsencode(state)).hexdigest()[:16]
    short = Path(tempfile.gettempdir(), f"function-builder-{os.getuid()}-{key}")
    short.mkdir(mode=0o700, exist_ok=True)
    if short.stat().st_uid != os.getuid() or short.is_symlink():
        raise PermissionError(f"{short} belongs to another user")
    return short
