"""The marks of tenants' quotas over all builders, in a key-value bucket, `quotas`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from function_builder.queue.bucket import Bucket
from function_builder.queue.jetstream import JetStream

_KEPT_SECONDS: Final = 2 * 3600.0
"""A mark is at most an hour ahead. One in the past has no effect, so it may expire."""


class StoredMarks:
    """The bucket.

    Args:
        jetstream: a connection.
        replicas: on how many servers each mark is kept.
    """

    def __init__(self, jetstream: JetStream, replicas: int) -> None:
        self._jetstream = jetstream
        self._bucket = Bucket(jetstream, "quotas", kept=_KEPT_SECONDS, replicas=replicas)

    async def move(self, tenant: str, change: Callable[[float], float]) -> float:
        """Change a tenant's mark; see `port.Marks`."""
        self._jetstream.require_connected()
        await self._bucket.prepare()
        moved = await self._bucket.change(
            tenant, lambda stored: repr(change(float(stored or 0))).encode()
        )
        return float(moved)
