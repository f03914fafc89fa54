"""Idempotency keys: each identifies one build for 24 hours.

A key is stored by compare-and-set before its job is stored. If a builder is killed in between, the
key's build has no record. After `TAKE_OVER_SECONDS` the next request with the key uses the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Final

from function_builder.contract.errors import Refusal
from function_builder.queue.connection import Changed
from function_builder.queue.jetstream import JetStream
from function_builder.queue.port import Idempotency
from function_builder.queue.records import Found
from function_builder.queue.states import Record
from function_builder.queue.streams import KEY_SUBJECTS, KEYS

TAKE_OVER_SECONDS: Final = 10.0
"""If a key's build has no record after this time, its request was never acknowledged."""

_POLL_SECONDS: Final = 0.1


class Claims:
    """The keys of all tenants.

    Args:
        jetstream: a connection.
        find: the record of a tenant's build; None: there is none.
    """

    def __init__(
        self, jetstream: JetStream, find: Callable[[str, str], Awaitable[Found | None]]
    ) -> None:
        self._jetstream = jetstream
        self._find = find

    async def known(self, tenant: str, key: Idempotency) -> Record | None:
        """The build that a key identifies; None: none yet.

        Raises:
            Refusal: 422: the key was sent with another body.
        """
        stored = await self._jetstream.last(KEYS, _subject(tenant, key))
        if stored is None:
            return None
        claim = json.loads(stored.data)
        if claim["fingerprint"] != key.fingerprint.hex():
            raise Refusal(422, "this Idempotency-Key was sent with another request: use a new key")
        for _ in range(int(TAKE_OVER_SECONDS / _POLL_SECONDS)):
            found = await self._find(tenant, claim["id"])
            if found is not None:
                return found.record
            if time.time() - claim["time"] > TAKE_OVER_SECONDS:
                return None
            # The first request stores its body, or was killed.
            await asyncio.sleep(_POLL_SECONDS)
        return None

    async def claim(self, record: Record, key: Idempotency) -> tuple[Record | None, str]:
        """Let a key identify a build.

        Returns:
            The build that it identifies already, or None; and the id that it identifies.
        """
        claim = {
            "id": record.info.id,
            "fingerprint": key.fingerprint.hex(),
            "time": time.time(),
        }
        subject = _subject(record.tenant, key)
        while True:
            stored = await self._jetstream.last(KEYS, subject)
            if stored is not None:
                known = await self.known(record.tenant, key)
                return known, json.loads(stored.data)["id"]
            with contextlib.suppress(Changed):
                await self._jetstream.publish(subject, json.dumps(claim).encode(), last=0)
                return None, record.info.id


def _subject(tenant: str, key: Idempotency) -> str:
    # A key may be any text, but a subject may not.
    return f"{KEY_SUBJECTS}.{tenant}.{hashlib.sha256(key.key.encode()).hexdigest()}"
