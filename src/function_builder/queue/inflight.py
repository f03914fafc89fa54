"""How many builds of a tenant each builder runs, in a key-value bucket, `inflight`.

A key is a tenant. Its value has one part for each builder process, which changes its own part by
compare-and-set. So a part that is written twice counts once. The part of a builder that was killed
counts for as long as its heartbeat is stored, twice `lost_after`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Final

from nats.aio.msg import Msg

from function_builder.queue.bucket import Bucket
from function_builder.queue.heartbeats import Heartbeats
from function_builder.queue.jetstream import JetStream

_KEPT_SECONDS: Final = 24 * 3600.0
"""A part is written again while its builds run (`SharedInflight`)."""


class StoredInflight:
    """The bucket.

    Args:
        jetstream: a connection.
        heartbeats: those of all builders.
        owner: this process's name among all builders.
        replicas: on how many servers each value is kept.
    """

    def __init__(
        self, jetstream: JetStream, heartbeats: Heartbeats, owner: str, replicas: int
    ) -> None:
        self._jetstream = jetstream
        self._heartbeats = heartbeats
        self._owner = owner
        self._prepared = False
        self._bucket = Bucket(jetstream, "inflight", kept=_KEPT_SECONDS, replicas=replicas)

    async def watch(self, changed: Callable[[str, int], None]) -> None:
        """Report each change; see `port.Inflight`."""
        await self._prepare()

        async def on_change(message: Msg) -> None:
            _, _, tenant = message.subject.rpartition(".")
            parts = _parse(message.data)
            changed(tenant, sum(parts.values()) - parts.get(self._owner, 0))

        async with self._jetstream.asking():
            await self._jetstream.client.subscribe(f"{self._bucket.subjects}.*", cb=on_change)

    async def claim(self, tenant: str, *, least: int, wanted: int, limit: int) -> int:
        """Set this builder's part; see `port.Inflight`."""
        self._jetstream.require_connected()
        await self._prepare()
        lost: Collection[str] = ()
        while True:
            own, others = await self._write(tenant, least, wanted, limit, lost)
            if own >= wanted or not others:
                return own
            lost = [*lost, *(gone := await self._heartbeats.silent(others))]
            if not gone:
                return own

    async def _prepare(self) -> None:
        if not self._prepared:
            await self._bucket.prepare()
            # Before the first part: without a heartbeat, it would be that of a lost builder.
            await self._heartbeats.send()
            self._prepared = True

    async def _write(
        self, tenant: str, least: int, wanted: int, limit: int, lost: Collection[str]
    ) -> tuple[int, Collection[str]]:
        """Write this builder's part, and return it with the names of the others."""
        own = 0
        others: Mapping[str, int] = {}

        def with_own(stored: bytes) -> bytes:
            nonlocal own, others
            gone = {self._owner, *lost}
            others = {each: part for each, part in _parse(stored).items() if each not in gone}
            own = max(least, min(wanted, limit - sum(others.values())))
            return json.dumps(others | ({self._owner: own} if own else {})).encode()

        await self._bucket.change(tenant, with_own)
        return own, others


def _parse(value: bytes) -> Mapping[str, int]:
    parts: Mapping[str, int] = json.loads(value or b"{}")
    return parts
