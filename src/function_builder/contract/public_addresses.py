"""Which IP addresses belong to the public internet. No I/O.

The lists are IANA's registries of special-purpose addresses (RFC 6890 and its successors), and the
metadata services of clouds. `ipaddress.is_global` is not used, because its answers differ between
patch versions of Python.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

_METADATA: Final = "an address of a cloud's metadata service"

_KINDS: Final = tuple(
    (ip_network(network), kind)
    for kind, networks in {
        # First, because some of them are in the networks below.
        _METADATA: "169.254.169.254/32 169.254.170.2/32 169.254.170.23/32 168.63.129.16/32 "
        "100.100.100.200/32 192.0.0.192/32 fd00:ec2::/32 fd20:ce::254/128",
        "a loopback address": "127.0.0.0/8 ::1/128",
        "a link-local address": "169.254.0.0/16 fe80::/10",
        "a private address": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7 "
        "fec0::/10 64:ff9b:1::/48",
        "a multicast address": "224.0.0.0/4 ff00::/8",
        "a reserved address": "0.0.0.0/8 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 "
        "198.51.100.0/24 203.0.113.0/24 240.0.0.0/4 2001::/23 2001:db8::/32 2002::/16 3fff::/20",
    }.items()
    for network in networks.split()
)

METADATA: Final = tuple(network for network, kind in _KINDS if kind == _METADATA)
"""The addresses of clouds' metadata services."""

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def embedded(address: Address) -> Address:
    """The IPv4 address that a packet to this address reaches, else the address itself.

    These are IPv4-mapped addresses (RFC 4291) and those of NAT64 (RFC 6052). 6to4 and Teredo are
    not resolved: none of their addresses is public here.
    """
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def kind_of_private(address: Address) -> str:
    """What an address is that is not public, such as "a loopback address"; "" if it is public."""
    reached = embedded(address)
    for network, kind in _KINDS:
        if reached in network:
            return kind
    if isinstance(reached, IPv6Address) and reached not in _GLOBAL_UNICAST:
        return "a reserved address"
    return ""


def in_network(address: Address, network: IPv4Network | IPv6Network) -> bool:
    """Whether a network contains an address, or the IPv4 address that it stands for."""
    return address in network or embedded(address) in network


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine's loopback interface, by its text alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
