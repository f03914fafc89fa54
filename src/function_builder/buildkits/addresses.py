"""`buildkit_url`: the addresses of BuildKits, and those that DNS has for a name."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from aiobuildkit import Address
from aiobuildkit.hostport import HostPort


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of one BuildKit.

    Attributes:
        address: `unix:///path` or `tcp://host:port`.
        name: the host in its certificate; empty: the address's own.
    """

    address: str
    name: str = ""

    @property
    def on_unix_socket(self) -> bool:
        """Whether it is a unix socket, which has no TLS."""
        return self.address.startswith("unix:")


@dataclass(frozen=True, slots=True)
class Addresses:
    """The BuildKits that a builder may use.

    Attributes:
        text: the setting.
        fixed: BuildKits that are named one by one.
        names: host and port of each name of which every address is a BuildKit, such as that of a
            headless Service.
    """

    text: str
    fixed: tuple[Endpoint, ...]
    names: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Addresses:
        """Read `unix:///path`, `tcp://host:port` and `dns://name:port`, separated by commas.

        A name in `tcp://` is one BuildKit, because `localhost` and dual-stack hosts have two
        addresses. With `dns://` each address is one.

        Raises:
            ValueError: a part has another form.
        """
        fixed, names = [], []
        for part in filter(None, (part.strip() for part in text.split(","))):
            if part.startswith("dns://"):
                names.append(_name(part))
            else:
                _check_host(Address.parse(part).host, part)
                fixed.append(Endpoint(part))
        if not fixed and not names:
            raise ValueError("names no BuildKit")
        return cls(text, tuple(dict.fromkeys(fixed)), tuple(dict.fromkeys(names)))

    async def resolve(self) -> list[Endpoint]:
        """Ask the system's resolver for the names.

        Raises:
            OSError: a name has no address, or no name server answered.
        """
        loop = asyncio.get_running_loop()
        found = list(self.fixed)
        for host, port in self.names:
            answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for *_, where in answers:
                found.append(Endpoint(f"tcp://{HostPort(str(where[0]), port)}", host))
        return found


def _name(part: str) -> HostPort:
    try:
        host, port = HostPort.parse(part.removeprefix("dns://").rstrip("/"))
    except ValueError:
        host, port = "", 0
    if not host or not port:
        raise ValueError(f"must be dns://NAME:PORT, not {part}")
    _check_host(host, part)
    return HostPort(host.lower(), port)


def _check_host(host: str, part: str) -> None:
    """Refuse an invalid name, for which the resolver raises this error instead of an OSError.

    Raises:
        ValueError: a label is empty or longer than 63 characters.
    """
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{part} has an invalid host name: {host}") from error
