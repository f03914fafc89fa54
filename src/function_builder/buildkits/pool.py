"""The BuildKits of a builder, and the choice of one for each build.

A build is fast on the BuildKit that has its cache. So each function has a home BuildKit, which
every builder computes by itself: the highest of the hashes of the function and each
BuildKit's identity (rendezvous hashing: Thaler and Ravishankar, "A Name-Based Mapping Scheme for
Rendezvous", 1996). When a BuildKit is removed, its functions move to the second one in their order,
and no other function moves. When it returns with its cache, they return too.

Popular functions would overload their home. So a BuildKit with more than its share of builds is
skipped for the next one (consistent hashing with bounded loads: Mirrokni, Thorup and Zadimoghaddam,
2017). Each builder only counts its own builds. If each builder distributes its builds evenly, all
builds are distributed evenly.
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
"""Seconds between two DNS queries, as long as Kubernetes' DNS answers may be cached."""

_SHARE: Final = 1.25
"""The most builds on one BuildKit, as a multiple of the mean."""

_ALWAYS: Final = 4
"""Builds that a BuildKit may always have. A few builds hardly slow each other, and a build without
its cache takes many times as long."""


class Chosen(StrEnum):
    """The reason for the choice of a build's BuildKit."""

    HOME = "home"
    """It is the function's home, with its cache."""
    BUSY = "busy"
    """The function's home has more than its share of builds."""
    LOST = "lost"
    """The previous BuildKit was lost during the build."""


class Pool:
    """BuildKits, with health checks.

    Args:
        addresses: of the BuildKits.
        connect: makes a client for an address.

    Attributes:
        daemons: all current BuildKits by address.
    """

    def __init__(self, addresses: Addresses, connect: Callable[[Endpoint], Client]) -> None:
        self._addresses = addresses
        self._connect = connect
        self._watches: dict[str, asyncio.Task[None]] = {}
        self.daemons: dict[str, Daemon] = {}
        self._set(addresses.fixed)

    @property
    def reachable(self) -> bool:
        """Whether any BuildKit answered its last health check."""
        return self.answering > 0

    @property
    def answering(self) -> int:
        """The number of addresses that answered their last health check."""
        return sum(daemon.reachable for daemon in self.daemons.values())

    @property
    def recorded_paths(self) -> int:
        """The number of paths in all content records."""
        return sum(daemon.records.paths for daemon in self.daemons.values())

    @property
    def disk_bytes(self) -> float:
        """The size of all known caches together, in bytes; NaN if none is known."""
        return known_sum(daemon.disk_bytes for daemon in self.daemons.values())

    async def watch(self) -> None:
        """Check the health of all forever, and update the list."""
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
        """Update the list from DNS; without an answer, keep the previous one."""
        try:
            async with asyncio.timeout(_PERIOD):
                self._set(await self._addresses.resolve())
        except (OSError, TimeoutError) as error:
            _log.warning("the names of BuildKits have no address", reason=str(error) or "no answer")
        except Exception:  # noqa: BLE001 (an end of the watch would go unseen)
            _log.exception("the names of BuildKits could not be looked up")

    def doubt(self, lost: Daemon) -> None:
        """After a build lost the connection: doubt the BuildKit at each of its addresses.

        If the pool is still reachable, another BuildKit answers.
        """
        for daemon in self.daemons.values():
            if daemon.identity == lost.identity:
                daemon.doubt()

    @contextmanager
    def place(
        self, cache_scope: str, *, lost: Daemon | None = None
    ) -> Iterator[tuple[Daemon, Chosen]]:
        """Choose a BuildKit for a function; it counts as busy with it until the block ends.

        Args:
            cache_scope: `{trust_domain}/{repository}`, or any other key of builds that share a
                cache.
            lost: a BuildKit to avoid.

        Raises:
            ConnectionFailed: there is no BuildKit.
        """
        daemon, reason = self._choose(cache_scope, lost)
        daemon.builds += 1
        try:
            yield daemon, reason
        finally:
            daemon.builds -= 1

    def _choose(self, cache_scope: str, lost: Daemon | None) -> tuple[Daemon, Chosen]:
        usable = [daemon for daemon in self._usable() if daemon is not lost]
        if not usable:
            raise ConnectionFailed(self._addresses.text, "there is no BuildKit to use")
        usable.sort(key=lambda daemon: _weight(daemon.identity, cache_scope), reverse=True)
        if lost is not None:
            return usable[0], Chosen.LOST
        running = sum(daemon.builds for daemon in usable)
        share = max(_ALWAYS, math.ceil(_SHARE * (running + 1) / len(usable)))
        # The share is above the mean, so that at least one daemon is below it.
        daemon = next(daemon for daemon in usable if len(usable) == 1 or daemon.builds < share)
        return daemon, Chosen.HOME if daemon is usable[0] else Chosen.BUSY

    def _usable(self) -> list[Daemon]:
        """Reachable BuildKits, each once, because one may have an IPv4 and an IPv6 address.

        If none is reachable, all, because the attempt of the build gives the best error.
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


def known_sum(sizes: Iterable[float]) -> float:
    """The sum of what is not NaN; NaN if all are."""
    known = [size for size in sizes if not math.isnan(size)]
    return sum(known) if known else math.nan


def _weight(identity: str, cache_scope: str) -> bytes:
    return blake2b(f"{identity}\0{cache_scope}".encode(), digest_size=8).digest()
