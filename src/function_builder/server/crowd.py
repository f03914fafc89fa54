"""Members of a limited number, counted by the address that they come from.

When the limit is reached, an address with the most members loses one. So an attacker with a
thousand connections loses its own, and other addresses keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Generic, TypeVar

Member = TypeVar("Member")

_IPV6_PREFIX = 64
"""One host usually has all addresses of a /64 (RFC 7421)."""


class Crowd(Generic[Member]):
    """Members by source, those of each source in the order of their arrival."""

    def __init__(self) -> None:
        # Dictionaries for their order.
        self._members: dict[str, dict[Member, None]] = {}
        self._sources: dict[Member, str] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, member: Member) -> bool:
        return member in self._sources

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._sources))

    def add(self, member: Member, source: str) -> None:
        """Add a member; one that is present becomes its source's newest."""
        self.discard(member)
        self._sources[member] = source
        self._members.setdefault(source, {})[member] = None

    def discard(self, member: Member) -> None:
        """Remove a member, if it is there."""
        source = self._sources.pop(member, None)
        if source is None:
            return
        del self._members[source][member]
        if not self._members[source]:
            del self._members[source]

    def largest(self) -> list[Member]:
        """The members of the source that has the most; of several such sources, those of all."""
        most = max(map(len, self._members.values()), default=0)
        return [
            member
            for members in self._members.values()
            if len(members) == most
            for member in members
        ]

    def oldest_of_largest(self) -> Member:
        """The oldest member of a source that has the most."""
        largest = max(self._members.values(), key=len)
        return next(iter(largest))


def source_of(address: str) -> str:
    """The source that a client's address counts for: an IPv4 address, or a /64 of IPv6."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed, _IPV6_PREFIX), strict=False))
