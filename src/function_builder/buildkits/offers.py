"""Generations of content records that are offered to the other builders of one BuildKit.

A generation is leased to one build at a time, also over builders, because what a build announces
changes what BuildKit has for the next one. So an offer is a version in a store with
compare-and-set. A build claims the version that it has read, which removes the offer. When it has
ended, it offers its generation.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from function_builder.buildkits.daemon import Daemon
from function_builder.context.generations import Generation
from function_builder.context.mtimes import ContentRecords


class Claim(NamedTuple):
    """What a build needs to offer its generation.

    Attributes:
        records: of its BuildKit.
        key: of the function on that BuildKit.
        version: that the offer replaces. If another build claims meanwhile, it is another one.
        era: of BuildKit, as all builders know it.
    """

    records: ContentRecords
    key: str
    version: int
    era: str


class Offers(Protocol):
    """The offers of all builders; if their store does not answer, there are none."""

    async def look(self, daemon: Daemon, cache_scope: str) -> None:
        """Bring a function's offer into the records of a BuildKit, or discard an old one there."""

    async def claim(self, daemon: Daemon, cache_scope: str) -> Claim | None:
        """As `look`, and take the offer for this builder alone.

        Returns:
            None: the build's generation cannot be offered.
        """

    async def offer(self, claim: Claim, generation: Generation) -> bool:
        """Offer the generation of a build that has ended.

        Returns:
            Whether this builder may lease it again: not if it is unknown whether it is offered.
        """
