"""The shared BuildKits of a builder, and those of tenants with BuildKits of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import structlog

from function_builder.buildkits.daemon import Daemon
from function_builder.buildkits.pool import Pool, known_sum

_log = structlog.get_logger(__name__)

_PERIOD: Final = 2.0
"""Seconds between two checks for changes of the tenants' BuildKits."""


class Pools:
    """A pool for all, and one for each tenant that names its own.

    A tenant with a pool never uses the shared one, and no other tenant uses its pool.

    Args:
        shared: the builder's pool.
        connect: makes the pool of a `buildkit_url`.
        urls: the `buildkit_url` of each tenant that has one, now.

    Attributes:
        shared: the argument.
    """

    def __init__(
        self,
        shared: Pool,
        connect: Callable[[str], Pool] | None = None,
        urls: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.shared = shared
        self._connect = connect
        self._urls = urls
        self._own: dict[str, Pool] = {}

    def of(self, tenant: str) -> Pool:
        """The pool for a tenant's builds."""
        url = self._urls().get(tenant)
        return self.shared if url is None else self._pool(url)

    @property
    def all(self) -> list[Pool]:
        """The shared pool, and those of tenants."""
        return [self.shared, *self._own.values()]

    def tenants(self, pool: Pool) -> list[str]:
        """The tenants whose own pool this is; empty for the shared one."""
        return sorted(name for name, url in self._urls().items() if self._own.get(url) is pool)

    def each_daemon(self) -> Iterator[Daemon]:
        """All BuildKits."""
        for pool in self.all:
            yield from pool.daemons.values()

    @property
    def unreachable(self) -> int:
        """The number of tenants' pools of which no BuildKit answers."""
        return sum(not pool.reachable for pool in self._own.values())

    @property
    def daemons(self) -> int:
        """The number of all addresses."""
        return sum(len(pool.daemons) for pool in self.all)

    @property
    def answering(self) -> int:
        """The number of addresses that answered their last health check."""
        return sum(pool.answering for pool in self.all)

    @property
    def recorded_paths(self) -> int:
        """The number of paths in all content records."""
        return sum(pool.recorded_paths for pool in self.all)

    @property
    def disk_bytes(self) -> float:
        """The size of all known caches together, in bytes; NaN if none is known."""
        return known_sum(pool.disk_bytes for pool in self.all)

    async def watch(self) -> None:
        """Check the health of all forever, and follow the changes of the tenants' addresses."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.shared.watch())
            if self._connect is not None:
                group.create_task(self._watch_own())

    async def _watch_own(self) -> None:
        watches: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                wanted = set(self._urls().values())
                for url in self._own.keys() - wanted:
                    # A build that runs there keeps its BuildKit.
                    del self._own[url]
                    if watch := watches.pop(url, None):
                        watch.cancel()
                for url in wanted - watches.keys():
                    watches[url] = asyncio.create_task(self._pool(url).watch())
                    _log.info("BuildKits of a tenant", addresses=url)
                await asyncio.sleep(_PERIOD)
        finally:
            for watch in watches.values():
                watch.cancel()

    def _pool(self, url: str) -> Pool:
        """The pool of an address; a build may need it before the next check."""
        assert self._connect is not None
        if url not in self._own:
            self._own[url] = self._connect(url)
        return self._own[url]
