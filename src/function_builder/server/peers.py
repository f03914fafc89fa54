"""The address of a request's client: the peer, or the one that trusted proxies report.

Sources: RFC 7239 (`Forwarded`); X-Forwarded-For is a list to which each proxy adds its peer. A
client can write anything at its left end. So both lists are read from the right, as far as trusted
proxies wrote them. The result is an IP address or empty, so a log gets no other text of a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from starlette.requests import HTTPConnection, Request

from function_builder.settings import Networks

Address: TypeAlias = IPv4Address | IPv6Address

_WITH_PORT = re.compile(r"\[(?P<six>[^\]]*)\](:[^:]*)?|(?P<four>[0-9.]+):[^:]*")
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_PAIR = re.compile(r'\s*([^=;"\s]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;"]*)(?:;|$)')
"""Quoted strings match as a whole, because a proxy may quote a client's value, such as its Host."""


def client_address(request: HTTPConnection, trusted: Networks) -> str:
    """The client's IP address; empty where there is none, as on a unix socket.

    If both headers are present, X-Forwarded-For is used, because most proxies write it. So a proxy
    that writes `Forwarded` must remove its client's X-Forwarded-For.
    """
    address = _parse(request.client.host if request.client else "")
    if address is None:
        return ""
    for hop in _hops(request):
        if not _within(address, trusted):
            break
        further = _parse(hop)
        if further is None:
            break
        address = further
    return str(address)


async def until_gone(request: Request) -> None:
    """Wait until the client disconnects; its body must have been received."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _hops(request: HTTPConnection) -> Iterator[str]:
    """The peers that proxies report, the last proxy's first."""
    headers = request.headers.getlist("x-forwarded-for")
    if headers:
        for header in reversed(headers):
            yield from reversed(header.split(","))
        return
    for header in reversed(request.headers.getlist("forwarded")):
        for element in reversed(_ELEMENT.findall(header)):
            # Without `for`, the peer of this proxy is unknown.
            pairs = {name.lower(): value for name, value in _PAIR.findall(element)}
            yield pairs.get("for", "").strip('"')


def _parse(text: str) -> Address | None:
    text = text.strip()
    if parts := _WITH_PORT.fullmatch(text):
        text = parts["six"] or parts["four"] or ""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A socket for both families reports an IPv4 peer like this.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _within(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)
