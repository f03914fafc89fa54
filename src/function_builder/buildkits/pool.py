"""The BuildKits that a builder may use, and which of them builds what.

A build is fast where its cache is. So each function has a BuildKit that it is at home on, which
every builder finds without asking another: the highest of the hashes of the function and each
BuildKit's identity (rendezvous hashing: Thaler and Ravishankar, "A Name-Based Mapping Scheme for
Rendezvous", 1996). When one goes, its functions go to the second of their order and no other
function moves; when it comes back with its cache, they come back to it.

Popular functions would drown their home: a BuildKit with more than its share is passed over for
the next in order (consistent hashing with bounded loads: Mirrokni, Thorup and Zadimoghaddam, 2017).
Each builder counts its own builds only; shares that are fair for each are fair for all.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from hashlib import blake2b
from typing import Final

import structlog

from aiobuildkit import Client, ConnectionFailed
from function_builder.buildkits.addresses import Addresses, Endpoint
from function_builder.buildkits.daemon import Daemon
from function_builder.context.mtimes import MAX_PATHS

_log = structlog.get_logger(__name__)

_PERIOD: Final = 5.0
"""Seconds between two questions for the names, as long as Kubernetes' DNS lets one cache them."""

_SHARE: Final = 1.25
"""Times the mean that one BuildKit may have."""

_ALWAYS: Final = 4
"""Builds that a BuildKit may have at any time: a few at once hardly slow each other, while a build
without its cache takes many times as long."""


class Chosen(StrEnum):
    """Why a build is on the BuildKit that it is on."""

    HOME = "home"
    """It holds the function's cache."""
    BUSY = "busy"
    """The function's home has more than its share."""
    LOST = "lost"
    """The one before was lost with the build on it."""


class Pool:
    """BuildKits, watched.

    Args:
        addresses: where they are.
        connect: makes the client of one.

    Attributes:
        daemons: all that there are at the moment, by their address.
    """

    def __init__(self, addresses: Addresses, connect: Callable[[Endpoint], Client]) -> None:
        self._addresses = addresses
        self._connect = connect
        self._watches: dict[str, asyncio.Task[None]] = {}
        self.daemons: dict[str, Daemon] = {}
        self._set(addresses.fixed)

    @property
    def reachable(self) -> bool:
        """Whether any answered when it was last asked."""
        return self.answering > 0

    @property
    def answering(self) -> int:
        """How many addresses answered when they were last asked."""
        return sum(daemon.reachable for daemon in self.daemons.values())

    @property
    def recorded_paths(self) -> int:
        """How many paths are known to be held, each on some BuildKit."""
        return sum(daemon.records.paths for daemon in self.daemons.values())

    @property
    def disk_bytes(self) -> float:
        """What their caches take together, as far as is known; not a number if nothing is."""
        known = [
            daemon.disk_bytes
            for daemon in self.daemons.values()
            if not math.isnan(daemon.disk_bytes)
        ]
        return sum(known) if known else math.nan

    async def watch(self) -> None:
        """Watch them all for ever, and who they are."""
        try:
            while True:
                await self.refresh()
                for address in self._watches.keys() - self.daemons.keys():
                    self._watches.pop(address).cancel()
                for address in self.daemons.keys() - self._watches.keys():
                    self._watches[address] = asyncio.create_task(self.daemons[address].watch())
                if self._addresses.names:
                    await asyncio.sleep(_PERIOD)
                else:
                    await asyncio.Event().wait()
        finally:
            for task in self._watches.values():
                task.cancel()

    async def refresh(self) -> None:
        """Ask who they are; without an answer, they are those of before."""
        try:
            async with asyncio.timeout(_PERIOD):
                self._set(await self._addresses.resolve())
        except (OSError, TimeoutError) as error:
            _log.warning("the names of BuildKits have no address", reason=str(error) or "no answer")
        except Exception:  # noqa: BLE001 (an end of the watch would go unseen)
            _log.exception("the names of BuildKits could not be looked up")

    def has_other(self, daemon: Daemon) -> bool:
        """Whether another one than this could be used instead."""
        return any(other is not daemon for other in self._usable())

    @contextmanager
    def place(
        self, function: str, *, lost: Daemon | None = None
    ) -> Iterator[tuple[Daemon, Chosen]]:
        """The BuildKit to build a function on, and why; it has one more build until the block ends.

        Args:
            function: what builds of one cache have in common.
            lost: not this one.

        Raises:
            ConnectionFailed: there is none.
        """
        daemon, reason = self._choose(function, lost)
        daemon.builds += 1
        try:
            yield daemon, reason
        finally:
            daemon.builds -= 1

    def _choose(self, function: str, lost: Daemon | None) -> tuple[Daemon, Chosen]:
        usable = [daemon for daemon in self._usable() if daemon is not lost]
        if not usable:
            raise ConnectionFailed(self._addresses.text, "there is no BuildKit to use")
        usable.sort(key=lambda daemon: _weight(daemon.identity, function), reverse=True)
        if lost is not None:
            return usable[0], Chosen.LOST
        running = sum(daemon.builds for daemon in usable)
        share = max(_ALWAYS, math.ceil(_SHARE * (running + 1) / len(usable)))
        # The share is above the mean, so that at least one daemon is below it.
        daemon = next(daemon for daemon in usable if len(usable) == 1 or daemon.builds < share)
        return daemon, Chosen.HOME if daemon is usable[0] else Chosen.BUSY

    def _usable(self) -> list[Daemon]:
        """Those that answer, each once: one may have an address of IPv4 and one of IPv6.

        Where none does, all: the build's own attempt says best what is wrong.
        """
        daemons = self.daemons.values()
        answering = {daemon.identity: daemon for daemon in daemons if daemon.reachable}
        return list(answering.values() or daemons)

    def _set(self, endpoints: Iterable[Endpoint]) -> None:
        known = self.daemons
        self.daemons = {
            endpoint.address: known.get(endpoint.address) or Daemon(self._connect(endpoint))
            for endpoint in endpoints
        }
        for daemon in self.daemons.values():
            daemon.records.max_paths = MAX_PATHS // len(self.daemons)
        if self._addresses.names and self.daemons.keys() != known.keys():
            _log.info("BuildKits", addresses=sorted(self.daemons))


def _weight(identity: str, function: str) -> bytes:
    return blake2b(f"{identity}\0{function}".encode(), digest_size=8).digest()
