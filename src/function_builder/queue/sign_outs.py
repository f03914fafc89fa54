"""The sessions of browsers that have signed out, in a key-value bucket, `sign_outs`.

A builder can verify a session without a store, so a copy of its cookie would stay valid until it
expires. All builders look here.
"""

from __future__ import annotations

import hashlib
from typing import Final

from function_builder.contract.web import SESSION_SECONDS
from function_builder.queue.bucket import Bucket
from function_builder.queue.jetstream import JetStream

_SIZES: Final = (16 << 20, 1 << 20)
"""The bytes of all sign-outs, for about 100,000 of them or fewer; see `Bucket`."""


class StoredSignOuts:
    """The bucket.

    Args:
        jetstream: a connection.
        replicas: on how many servers each sign-out is kept.
    """

    def __init__(self, jetstream: JetStream, replicas: int) -> None:
        self._jetstream = jetstream
        self._bucket = Bucket(
            jetstream, "sign_outs", kept=SESSION_SECONDS, replicas=replicas, sizes=_SIZES
        )

    async def add(self, session: str) -> None:
        """Store a sign-out; see `port.SignOuts`."""
        self._jetstream.require_connected()
        await self._bucket.prepare()
        await self._jetstream.publish(self._subject(session), b"")

    async def contain(self, session: str) -> bool:
        """Look for a sign-out; see `port.SignOuts`."""
        self._jetstream.require_connected()
        await self._bucket.prepare()
        return await self._jetstream.last(self._bucket.stream, self._subject(session)) is not None

    def _subject(self, session: str) -> str:
        # NATS stores no cookie.
        return f"{self._bucket.subjects}.{hashlib.sha256(session.encode()).hexdigest()}"
