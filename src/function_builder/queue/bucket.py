"""A key-value bucket of NATS whose values change by compare-and-set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from nats.js.api import DiscardPolicy, StreamConfig

from function_builder.queue.connection import Changed
from function_builder.queue.jetstream import JetStream


class Bucket:
    """The bucket; it is created when it is first needed.

    Args:
        jetstream: a connection.
        name: of the bucket.
        kept: seconds after which a value is removed that has not changed.
        replicas: on how many servers each value is kept.
        max_bytes: of all values; beyond it the oldest are removed. None: no limit.

    Attributes:
        stream: the name of its stream.
        subjects: what the subject of each key begins with.
    """

    def __init__(
        self,
        jetstream: JetStream,
        name: str,
        *,
        kept: float,
        replicas: int,
        max_bytes: int | None = None,
    ) -> None:
        self.stream = f"KV_{name}"
        self.subjects = f"$KV.{name}"
        self._jetstream = jetstream
        self._kept = kept
        self._replicas = replicas
        self._max_bytes = max_bytes
        self._prepared = False

    async def prepare(self) -> None:
        """Create the bucket if it is not there.

        Raises:
            Unavailable: JetStream did not.
        """
        if self._prepared:
            return
        await self._jetstream.ensure_stream(
            StreamConfig(
                name=self.stream,
                subjects=[f"{self.subjects}.>"],
                max_age=self._kept,
                max_msgs_per_subject=1,
                max_bytes=self._max_bytes,
                discard=DiscardPolicy.NEW if self._max_bytes is None else DiscardPolicy.OLD,
                allow_rollup_hdrs=True,
                deny_delete=True,
                num_replicas=self._replicas,
            )
        )
        self._prepared = True

    async def change(self, key: str, change: Callable[[bytes], bytes]) -> bytes:
        """Change a value, and return the new one.

        Args:
            key: of the value.
            change: the new value for an old one, which is empty if there is none. It is called
                again if another process has changed the value meanwhile. An equal value is not
                written.

        Raises:
            Unavailable: it may not be written.
        """
        subject = f"{self.subjects}.{key}"
        while True:
            stored = await self._jetstream.last(self.stream, subject)
            value = change(b"" if stored is None else stored.data)
            if stored is not None and stored.data == value:
                return value
            last = 0 if stored is None else stored.sequence
            with contextlib.suppress(Changed):
                await self._jetstream.publish(subject, value, last=last)
                return value
