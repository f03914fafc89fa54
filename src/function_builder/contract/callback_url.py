"""The URL of a callback, and the hosts that callbacks may be sent to. No I/O.

`X-Callback-Url` is chosen by a client, and the builder sends a request there: a server-side request
forgery unless the operator lists the hosts (`callback_hosts`). The URL is parsed once. What is
checked is what is connected to, because the connection uses the parts of `CallbackURL` and no other
parser reads the text again. A text that parsers understand differently is refused.

The host is checked here, and each of its addresses at every connect (`CallbackHosts.refusal`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, NamedTuple, TypeAlias

from function_builder.contract.builds import CALLBACK_HEADER
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.public_addresses import Address, in_network, kind_of_private

MAX_URL_BYTES: Final = 2048

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SCHEME: Final = re.compile(r"(https?)://", re.IGNORECASE)
_TARGET: Final = re.compile(r"(?:[/?](?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?")
_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""A name with such a last label is an IPv4 address to `inet_aton` and to browsers."""

_PORT: Final = re.compile(r":([0-9]{1,5}|\*)$")
_LOCALHOST: Final = "localhost"
_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

Ports: TypeAlias = frozenset[int]
"""The ports that an entry allows; empty: every port."""

_WEB: Final = frozenset(_DEFAULT_PORTS.values())
_ANY: Final = frozenset[int]()


@dataclass(frozen=True, slots=True)
class CallbackURL:
    """An `http` or `https` URL in its parts.

    Attributes:
        scheme: `http` or `https`.
        host: a name in lower case, or an address, without brackets.
        port: its own or the scheme's.
        target: path and query, beginning with `/`.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The value of `Host`: the port is left out where it is the scheme's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The URL without path and query, which may hold a secret: for logs."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        """The URL again."""
        return self.origin + self.target

    @classmethod
    def parse(cls, text: str) -> CallbackURL:
        """Read a URL.

        Raises:
            ValueError: it is not one that can mean one thing only; the message says why.
        """
        if len(text) > MAX_URL_BYTES:
            raise ValueError(f"has more than {MAX_URL_BYTES} bytes")
        scheme = _SCHEME.match(text)
        if scheme is None:
            raise ValueError("must begin with https:// or http://")
        rest = text[scheme.end() :]
        if "#" in rest:
            raise ValueError("has a fragment (#), which is never sent: leave it out")
        end = next((at for at, letter in enumerate(rest) if letter in "/?"), len(rest))
        authority, target = rest[:end], rest[end:]
        if not _TARGET.fullmatch(target):
            raise ValueError("has a character that must be percent-encoded in its path or query")
        host, port = _split(authority)
        name = scheme[1].lower()
        return cls(
            scheme=name,
            host=host,
            port=port or _DEFAULT_PORTS[name],
            target=target if target.startswith("/") else f"/{target}",
        )


def _split(authority: str) -> tuple[str, int]:
    """The host and the port, 0 where there is none.

    Raises:
        ValueError: it has something else, or a host that is read differently by others.
    """
    if "@" in authority:
        raise ValueError("has a user or password, which is not sent: leave it out")
    if not authority.isascii():
        raise ValueError("has a host that is not ASCII: use its form that begins with xn--")
    parts = _AUTHORITY.fullmatch(authority.lower())
    if parts is None or not parts[1]:
        raise ValueError("has no host, or something else between host and path")
    if parts[2] is not None and not 0 < int(parts[2]) <= 65535:
        raise ValueError("has a port outside of 1 to 65535")
    return _host(parts[1]), int(parts[2] or 0)


def _host(text: str) -> str:
    if text.startswith("["):
        return str(_ipv6(text[1:-1]))
    if text.endswith("."):
        raise ValueError("has a host that ends with a full stop: leave it out")
    if _NUMBER.fullmatch(text):
        return str(_ipv4(text))
    if not _NAME.fullmatch(text):
        raise ValueError("has a host that is not a name of letters, digits, - and full stops")
    return text


def _ipv4(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise ValueError("has an address that is not four decimal numbers") from None


def _ipv6(text: str) -> IPv6Address:
    try:
        address = IPv6Address(text)
    except ValueError:
        raise ValueError("has something in brackets that is not an IPv6 address") from None
    if address.scope_id is not None:
        raise ValueError("has an IPv6 address with a zone: leave it out")
    return address


class _Network(NamedTuple):
    network: IPv4Network | IPv6Network
    ports: Ports


class _Pattern(NamedTuple):
    """Names: one, or all that end with `.example.com` or with "" (every one)."""

    name: str
    wildcard: bool
    ports: Ports

    def matches(self, host: str) -> bool:
        return host.endswith(self.name) if self.wildcard else host == self.name


@dataclass(frozen=True, slots=True)
class CallbackHosts:
    """The setting `callback_hosts`: names and networks, each with the ports that it allows.

    Attributes:
        patterns: names that a URL may have.
        networks: addresses that a URL may have, and that the names may resolve to although they
            are not public.
    """

    patterns: Sequence[_Pattern] = ()
    networks: Sequence[_Network] = ()

    @classmethod
    def parse(cls, text: str) -> CallbackHosts:
        """Read `hooks.example.com,*.example.org:8443,10.0.0.0/8:*`.

        Without a port, an entry allows 80 and 443; with `:*`, every port. `*` is every name, and
        no address. `localhost` is 127.0.0.0/8 and ::1 too.

        Raises:
            ValueError: it has an entry of another form.
        """
        patterns, networks = [], []
        for entry in (part.strip() for part in text.split(",")):
            if not entry:
                continue
            host, ports = _split_ports(entry.lower())
            if network := _network(host):
                networks.append(_Network(network, ports))
                continue
            patterns.append(_pattern(entry, host, ports))
            if host == _LOCALHOST:
                networks += [_Network(each, ports) for each in _LOOPBACK]
        return cls(tuple(patterns), tuple(networks))

    def __bool__(self) -> bool:
        """Whether any host is allowed."""
        return bool(self.patterns or self.networks)

    def allows(self, url: CallbackURL) -> bool:
        """Whether a URL's host and port are listed."""
        if _is_address(url.host):
            return self._names(ip_address(url.host), url.port)
        return any(
            pattern.matches(url.host) and _has(pattern.ports, url.port) for pattern in self.patterns
        )

    def refusal(self, address: Address, port: int) -> str:
        """Why a connection to an address is not allowed; "" if it is.

        An address that is not public is allowed if a network of the list contains it, with the
        port. So a name cannot reach more of a private network than the list names.
        """
        kind = kind_of_private(address)
        return kind if kind and not self._names(address, port) else ""

    def _names(self, address: Address, port: int) -> bool:
        return any(
            in_network(address, entry.network) and _has(entry.ports, port)
            for entry in self.networks
        )


def check_url(text: str, hosts: CallbackHosts) -> CallbackURL:
    """The URL of `X-Callback-Url`.

    Raises:
        Refusal: 501, the builder sends no callbacks; 400, the URL is malformed or not allowed.
    """
    if not hosts:
        raise Refusal(
            501, f"{CALLBACK_HEADER}: this builder sends no callbacks (its setting callback_hosts)"
        )
    try:
        url = CallbackURL.parse(text)
    except ValueError as error:
        # The text may hold a password.
        raise Refusal(400, f"{CALLBACK_HEADER} {error}") from error
    if not hosts.allows(url):
        raise Refusal(
            400,
            f"{CALLBACK_HEADER}: this builder may not call {shown(url.host)} on port {url.port}: "
            "ask its operator to add it to callback_hosts",
        )
    return url


def _has(ports: Ports, port: int) -> bool:
    return not ports or port in ports


def _split_ports(entry: str) -> tuple[str, Ports]:
    """An entry's host and ports; a bare IPv6 address has colons and no port."""
    found = _PORT.search(entry)
    if found is None or (entry.count(":") > 1 and not entry.startswith("[")):
        return entry, _WEB
    if found[1] == "*":
        return entry[: found.start()], _ANY
    port = int(found[1])
    if not 0 < port <= 65535:
        raise ValueError(f"must have ports from 1 to 65535, or *: {entry}")
    return entry[: found.start()], frozenset({port})


def _network(host: str) -> IPv4Network | IPv6Network | None:
    """The network that an entry names; None if it does not look like one."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (":" in bare or "/" in bare or _NUMBER.fullmatch(bare)):
        return None
    try:
        return ip_network(bare)
    except ValueError as error:
        raise ValueError(
            f"must be a network such as 10.0.0.0/8, or a host without a scheme: {error}"
        ) from error


def _pattern(entry: str, host: str, ports: Ports) -> _Pattern:
    if host == "*":
        return _Pattern("", wildcard=True, ports=ports)
    wildcard = host.startswith("*.")
    name = host.removeprefix("*.")
    if not _NAME.fullmatch(name):
        raise ValueError(
            "must be HOST, *.DOMAIN, * or a network, each with :PORT or :* if needed, such as "
            f"hooks.example.com,*.example.org:8443,10.0.0.0/8:8080: {entry} is not one of these"
        )
    return _Pattern(f".{name}" if wildcard else name, wildcard=wildcard, ports=ports)


def _is_address(host: str) -> bool:
    return ":" in host or _NUMBER.fullmatch(host) is not None
