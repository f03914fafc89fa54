"""`host:port`, as Go's net.SplitHostPort reads it, with a number for the port."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import NamedTuple

_HOST = re.compile(r"[^\s:/@\[\]]*")


class HostPort(NamedTuple):
    """A host and a port.

    Attributes:
        host: a name, or an address without brackets; empty: every address of this machine.
        port: 0 to 65535.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """Read `host:port`, `[::1]:port` or `:port`.

        Raises:
            ValueError: it has another form.
        """
        host, colon, port = text.strip().rpartition(":")
        literal = host.startswith("[") and host.endswith("]")
        bare = host[1:-1] if literal else host
        number = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535
        if not (colon and number and (_is_ipv6(bare) if literal else _HOST.fullmatch(bare))):
            raise ValueError("must be HOST:PORT, such as 127.0.0.1:8080, [::1]:8080 or :8080")
        return cls(bare, int(port))

    def __str__(self) -> str:
        """The form that `parse` reads."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def everywhere(self) -> bool:
        """Whether it means every address of this machine: IPv4, IPv6 or both."""
        return self.host in ("", "0.0.0.0", "::")  # noqa: S104 (compared, not listened on)

    @property
    def local(self) -> HostPort:
        """The address at which this machine reaches a listener on this address."""
        if not self.everywhere:
            return self
        return self._replace(host="::1" if self.host == "::" else "127.0.0.1")


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
