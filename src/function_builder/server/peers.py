"""Who sent a request: the peer, or the client that trusted proxies name.

Sources: RFC 7239 (`Forwarded`); X-Forwarded-For is a list to which each proxy adds its peer. Its
left end is the client's own word, so both lists are read from the right, as far as proxies that the
operator trusts wrote them. The result is an IP address or empty: nothing else of these headers
reaches a log.
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
"""Quoted strings whole: a proxy may quote what the client chose, such as its Host."""


def client_address(request: HTTPConnection, trusted: Networks) -> str:
    """The client's IP address; empty where there is none, as on a unix socket.

    A proxy that writes `Forwarded` must remove an X-Forwarded-For of its client's: where both are
    there, X-Forwarded-For counts, because most proxies write that one.
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
    """What proxies say of their peers, the last proxy's word first."""
    headers = request.headers.getlist("x-forwarded-for")
    if headers:
        for header in reversed(headers):
            yield from reversed(header.split(","))
        return
    for header in reversed(request.headers.getlist("forwarded")):
        for element in reversed(_ELEMENT.findall(header)):
            # Without a `for` nothing is known of who is behind that proxy.
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
    # What a socket for both families says of an IPv4 peer.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _within(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)
