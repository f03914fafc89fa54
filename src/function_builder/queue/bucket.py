"""A key-value bucket of NATS whose values change by compare-and-set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from nats.js.api import DiscardPolicy, StreamConfig

from function_builder.queue.connection import Changed, Full
from function_builder.queue.jetstream import JetStream


class Bucket:
    """The bucket; it is created when it is first needed.

    Args:
        jetstream: a connection.
        name: of the bucket.
        kept: seconds after which a value is removed that has not changed.
        replicas: on how many servers each value is kept.
        sizes: the bytes of all values together, beyond which the oldest are removed. NATS reserves
            them, so the first size that it has room for is used. Empty: no limit.

    Attributes:
        stream: the name of its stream.
        subjects: the beginning of each key's subject.
    """

    def __init__(
        self,
        jetstream: JetStream,
        name: str,
        *,
        kept: float,
        replicas: int,
        sizes: Sequence[int] = (),
    ) -> None:
        self.stream = f"KV_{name}"
        self.subjects = f"$KV.{name}"
        self._jetstream = jetstream
        self._kept = kept
        self._replicas = replicas
        self._sizes = sizes
        self._prepared = False

    async def prepare(self) -> None:
        """Create the bucket if it is not there.

        Raises:
            Full: JetStream has no room for the smallest size.
            Unavailable: JetStream did not create it for another reason.
        """
        if self._prepared:
            return
        for size in self._sizes[:-1]:
            try:
                await self._create(size)
            except Full:
                continue
            break
        else:
            await self._create(self._sizes[-1] if self._sizes else None)
        self._prepared = True

    async def _create(self, max_bytes: int | None) -> None:
        await self._jetstream.ensure_stream(
            StreamConfig(
                name=self.stream,
                subjects=[f"{self.subjects}.>"],
                max_age=self._kept,
                max_msgs_per_subject=1,
                max_bytes=max_bytes,
                discard=DiscardPolicy.NEW if max_bytes is None else DiscardPolicy.OLD,
                allow_rollup_hdrs=True,
                deny_delete=True,
                num_replicas=self._replicas,
            )
        )

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
