"""What the queue asks of JetStream: streams, compare-and-set records, reads in batches, one pull.

nats-py has no call for two of these, and they are plain requests: Direct Get in batches
(NATS ADR-31), and a pull that does not wait (ADR-13).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from nats.aio.msg import Msg
from nats.errors import Error as NATSError
from nats.errors import NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from function_builder.queue.connection import REQUEST_SECONDS, Connection

MAX_BATCH: Final = 1000
"""The server refuses a batch of more than 1024 subjects (ADR-31)."""

_BATCH_BYTES: Final = 512 * 1024

_STREAM_EXISTS: Final = 10058
"""JetStream's code for a stream of this name with another configuration."""


class Progress(NamedTuple):
    """The progress of a consumer.

    Attributes:
        delivered: the number of the last message that was delivered for the first time.
        unacknowledged: how many delivered messages are not acknowledged.
    """

    delivered: int
    unacknowledged: int


class Stored(NamedTuple):
    """A message of a stream.

    Attributes:
        subject: where it was published.
        sequence: its number in the stream.
        data: its bytes.
        written: when it was stored, by the clock of NATS, in RFC 3339.
    """

    subject: str
    sequence: int
    data: bytes
    written: str = ""


async def put_stream(context: JetStreamContext, config: StreamConfig) -> None:
    """Create a stream, or update the existing one; raises nats-py's errors."""
    try:
        await context.add_stream(config)
    except APIError as error:
        if error.err_code != _STREAM_EXISTS:
            raise
        await context.update_stream(config)


class JetStream(Connection):
    """A connection to NATS, with the requests to JetStream that the queue needs."""

    async def ensure_stream(self, config: StreamConfig) -> None:
        """Create a stream, or update the existing one.

        Raises:
            Unavailable: JetStream did not do so.
        """
        config.storage = StorageType.FILE
        config.allow_direct = True
        async with self.asking():
            await put_stream(self.context, config)

    async def publish(
        self, subject: str, data: bytes, *, last: int | None = None, message_id: str = ""
    ) -> int:
        """Store a message, and return its number once JetStream has acknowledged it.

        Args:
            subject: of a stream.
            data: at most 1 MiB.
            last: the number of the subject's last message, 0 for none; None: any.
            message_id: a second message of the same id within two minutes is not stored.

        Raises:
            Changed: the subject has another last message.
            Full: there is no room.
            Unavailable: JetStream does not answer; the message may be stored.
        """
        headers: dict[str, str] = {}
        if last is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(last)
        if message_id:
            headers["Nats-Msg-Id"] = message_id
        async with self.asking():
            acknowledged = await self.context.publish(subject, data, headers=headers or None)
        return acknowledged.seq

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject."""
        found = await self.batch(stream, {"last_by_subj": subject}, one=True)
        return found[0] if found else None

    async def last_of(self, stream: str, subjects: Sequence[str]) -> Sequence[Stored]:
        """The last message of each subject that has one, in one request for each 1000."""
        found: list[Stored] = []
        for start in range(0, len(subjects), MAX_BATCH):
            some = subjects[start : start + MAX_BATCH]
            found += await self.batch(stream, {"multi_last": some, "batch": MAX_BATCH})
        return found

    async def from_sequence(
        self, stream: str, subject: str, sequence: int, most: int
    ) -> Sequence[Stored]:
        """Messages of a subject, which may have wildcards, from a number of the stream on.

        Args:
            stream: its name.
            subject: which messages.
            sequence: the first number.
            most: how many; fewer are returned if they have more than half a mebibyte.
        """
        return await self.batch(
            stream,
            {
                "seq": max(sequence, 1),
                "next_by_subj": subject,
                "batch": min(most, MAX_BATCH),
                "max_bytes": _BATCH_BYTES,
            },
        )

    async def batch(
        self, stream: str, request: Mapping[str, object], *, one: bool = False
    ) -> Sequence[Stored]:
        """Ask a stream for messages by Direct Get.

        Raises:
            Unavailable: JetStream does not answer.
        """
        found: list[Stored] = []
        inbox = self.client.new_inbox()
        async with self.asking(), asyncio.timeout(REQUEST_SECONDS):
            answers = await self.client.subscribe(inbox)
            try:
                subject = f"$JS.API.DIRECT.GET.{stream}"
                await self.client.publish(subject, json.dumps(request).encode(), reply=inbox)
                while True:
                    message = await answers.next_msg(timeout=REQUEST_SECONDS)
                    headers = message.headers or {}
                    status = headers.get("Status", "")
                    if status == "503":
                        raise NoRespondersError
                    if status:
                        return found
                    found.append(
                        Stored(
                            headers["Nats-Subject"],
                            int(headers["Nats-Sequence"]),
                            message.data,
                            headers.get("Nats-Time-Stamp", ""),
                        )
                    )
                    if one:
                        return found
            finally:
                with contextlib.suppress(NATSError):
                    await answers.unsubscribe()

    async def ensure_consumer(self, stream: str, config: ConsumerConfig) -> None:
        """Create a durable pull consumer, or update the existing one."""
        async with self.asking():
            await self.context.add_consumer(stream, config)

    async def place(self, stream: str, consumer: str, sequence: int) -> int:
        """The position of a message among those that a pull consumer has not delivered; at least 1.

        With several tenants it may be too large, because their messages are counted together. It
        is at most the number of this consumer's messages.
        """
        async with self.asking():
            try:
                info = await self.context.consumer_info(stream, consumer)
            except NotFoundError:
                state = (await self.context.stream_info(stream)).state
                return max(min(state.messages, sequence - state.first_seq + 1), 1)
        delivered = info.delivered.stream_seq if info.delivered else 0
        return max(min(info.num_pending or 0, sequence - delivered), 1)

    async def next_job(self, stream: str, consumer: str) -> Msg | None:
        """The next message of a pull consumer; None: it has none now.

        Raises:
            Unavailable: JetStream does not answer.
        """
        async with self.asking():
            message = await self.client.request(
                f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
                b'{"batch":1,"no_wait":true}',
                timeout=REQUEST_SECONDS,
                # A job has its own subject, and not that of the answer, by which the shared
                # inbox of nats-py finds the request.
                old_style=True,
            )
        status = (message.headers or {}).get("Status", "")
        return message if message.reply and not status else None

    async def waiting(self, stream: str, subjects: str) -> Mapping[str, int]:
        """How many messages each subject has in a stream."""
        async with self.asking():
            info = await self.context.stream_info(stream, subjects_filter=subjects)
        return info.state.subjects or {}

    async def count(self, stream: str) -> int:
        """How many messages a stream has; 0 without such a stream."""
        async with self.asking():
            try:
                return int((await self.context.stream_info(stream)).state.messages)
            except NotFoundError:
                return 0

    async def progress(self, stream: str, consumer: str) -> Progress:
        """The progress of a consumer; one that does not exist has delivered nothing."""
        async with self.asking():
            try:
                info = await self.context.consumer_info(stream, consumer)
            except NotFoundError:
                return Progress(0, 0)
        delivered = info.delivered.stream_seq if info.delivered else 0
        return Progress(delivered, info.num_ack_pending or 0)

    async def bounds(self, stream: str) -> tuple[int, int]:
        """The numbers of the oldest and of the newest message of a stream."""
        async with self.asking():
            state = (await self.context.stream_info(stream)).state
        return state.first_seq, state.last_seq

    async def purge(self, stream: str, subject: str) -> None:
        """Remove the messages of a subject."""
        async with self.asking():
            await self.context.purge_stream(stream, subject=subject)

    async def remove(self, stream: str, sequence: int) -> None:
        """Remove one message, if it exists."""
        async with self.asking():
            with contextlib.suppress(NotFoundError, APIError):
                await self.context.delete_msg(stream, sequence)
