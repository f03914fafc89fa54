"""`buildkit_url`: which BuildKits there are, by name and by what DNS says of a name."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiobuildkit import Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one BuildKit is.

    Attributes:
        address: `unix:///path` or `tcp://host:port`.
        name: the host that its certificate must bear; empty: the address's own.
    """

    address: str
    name: str = ""

    @property
    def on_unix_socket(self) -> bool:
        """Whether it is on this machine, where there is no TLS."""
        return self.address.startswith("unix:")


@dataclass(frozen=True, slots=True)
class Addresses:
    """The BuildKits that a builder may use.

    Attributes:
        text: as the setting has it.
        fixed: those that are named one by one.
        names: host and port of each name of which every address is a BuildKit, as that of a
            headless Service is.
    """

    text: str
    fixed: tuple[Endpoint, ...]
    names: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Addresses:
        """Read `unix:///path`, `tcp://host:port` and `dns://name:port`, separated by commas.

        A name in `tcp://` stands for one BuildKit, since `localhost` and many a dual-stack host
        have two addresses. So `dns://` says in so many words that each address is one.

        Raises:
            ValueError: a part is none of them.
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
            OSError: a name has no address, or nobody answered.
        """
        loop = asyncio.get_running_loop()
        found = list(self.fixed)
        for host, port in self.names:
            answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, *_, where in answers:
                address = f"[{where[0]}]" if family == socket.AF_INET6 else str(where[0])
                found.append(Endpoint(f"tcp://{address}:{port}", host))
        return found


def _name(part: str) -> tuple[str, int]:
    parts = urlsplit(part)
    if not parts.hostname or not parts.port or parts.path.strip("/"):
        raise ValueError(f"must be dns://NAME:PORT, not {part}")
    _check_host(parts.hostname, part)
    return parts.hostname, parts.port


def _check_host(host: str, part: str) -> None:
    """Refuse a name that the resolver would not even ask for: it raises this error, and no OSError.

    Raises:
        ValueError: a label is empty or longer than 63 characters.
    """
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{part} has a name that no host can have: {host}") from error
