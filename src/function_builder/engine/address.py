"""Addresses that child programs listen on: whether they are free, and whether one answers."""

import asyncio
import errno
import hashlib
import os
import socket
import tempfile
from pathlib import Path

from function_builder.engine.errors import AddressTaken, EngineError

# sun_path holds 108 bytes and ends with a zero byte (unix(7)).
_LONGEST_SOCKET_PATH = 107


def split(address: str) -> tuple[str, int]:
    """Take `host:port` apart; `[::1]:80` has its brackets removed.

    Raises:
        ValueError: it is not of that form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError(f"not host:port: {address!r}")
    return host.strip("[]"), int(port)


def ensure_free(address: str) -> None:
    """Make sure that nobody listens on `address` (host:port).

    Raises:
        AddressTaken: somebody does.
        EngineError: it is no address of this machine, or not for this user.
        ValueError: it is not `host:port`.
    """
    host, port = split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # Without it the connections of an earlier run, in TIME_WAIT, would count as a listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressTaken(address) from error
            raise EngineError(f"{address} cannot be listened on: {error.strerror}") from error


def ensure_silent(path: Path) -> None:
    """Make sure that nobody answers on the unix socket `path`; one left by the dead may stay.

    Raises:
        AddressTaken: somebody does.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise AddressTaken(f"unix://{path}")


async def tcp_answers(address: str) -> bool:
    """Whether a connection to `host:port` is taken."""
    host, port = split(address)
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


async def unix_answers(path: Path) -> bool:
    """Whether a connection to the unix socket `path` is taken."""
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
        longest_name: the longest path, below the directory, that a socket will have.
    """
    if len(os.fsencode(state / longest_name)) <= _LONGEST_SOCKET_PATH:
        return state
    key = hashlib.sha256(os.fsencode(state)).hexdigest()[:16]
    short = Path(tempfile.gettempdir(), f"function-builder-{os.getuid()}-{key}")
    short.mkdir(mode=0o700, exist_ok=True)
    if short.stat().st_uid != os.getuid() or short.is_symlink():
        raise PermissionError(f"{short} belongs to somebody else")
    return short
