"""The stream of callbacks on NATS JetStream.

One message is one future attempt, with the subject `builds.callbacks.<tenant>`. Work-queue
retention removes an acknowledged message. JetStream redelivers a message if its builder is silent
for too long, because the builder was lost.

The consumer has no limit of unacknowledged messages, because callbacks that wait for their next
attempt are unacknowledged. A receiver that is down for a day must not stop the callbacks of others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from nats.aio.msg import Msg
from nats.errors import Error as NATSError
from nats.errors import MsgAlreadyAckdError
from nats.errors import TimeoutError as NATSTimeoutError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from function_builder.queue.callbacks import Unavailable
from function_builder.queue.connection import keeping_cancellation
from function_builder.queue.jetstream import put_stream
from function_builder.queue.webhooks import Webhook

STREAM: Final = "builds_callbacks"
_SUBJECT: Final = "builds.callbacks"
_CONSUMER: Final = "deliver"

_LEAVE_SECONDS: Final = 5.0

_TURNS: Final = 20
"""More turns of the event loop than nats-py needs to return a message that has arrived."""

_NEXT_SECONDS: Final = 5.0
"""After this time the request is repeated, because a restart of NATS may have lost it."""

_DUPLICATES_SECONDS: Final = 600.0
"""How long JetStream ignores a repeated message, such as another builder's after a crash."""

_MAX_AGE_SECONDS: Final = 4 * 24 * 3600.0
"""More than the 75 hours after which a callback is given up."""

MAX_MESSAGES: Final = 200_000
"""Callbacks that wait; beyond it the oldest are removed. A limit in bytes would be reserved."""


class CallbackStream:
    """Implements `Deliveries`.

    Args:
        context: JetStream, on a connection that is open.
        replicas: on how many servers of a cluster each message is stored.
        held: seconds of silence after which JetStream redelivers a message.
    """

    def __init__(self, context: JetStreamContext, *, replicas: int = 1, held: float = 30.0) -> None:
        self._context = context
        self._replicas = replicas
        self._held = held
        self._messages: JetStreamContext.PullSubscription | None = None
        self._asking: asyncio.Task[list[Msg]] | None = None

    async def publish(self, webhook: Webhook) -> None:
        """Store a callback, once for its id and attempt.

        Raises:
            Unavailable: it may not be stored.
        """
        with _translated():
            await self._subscription()
            await self._context.publish(
                f"{_SUBJECT}.{webhook.tenant}",
                webhook.to_message(),
                headers={"Nats-Msg-Id": f"{webhook.id}.{webhook.attempt}"},
            )

    async def next(self) -> CallbackMessage | None:
        """Wait for a callback that is due; None: none came within some seconds."""
        with _translated():
            messages = await self._subscription()
            if self._asking is None:
                # One by one, because nats-py returns a batch only when it is full.
                fetching = messages.fetch(1, timeout=_NEXT_SECONDS)
                self._asking = asyncio.create_task(fetching, name="next callback")
            # If the caller is cancelled, a message that arrives must not be lost.
            await asyncio.wait([self._asking])
            asked, self._asking = self._asking, None
            try:
                (message,) = asked.result()
            except NATSTimeoutError:
                return None
        return CallbackMessage(message, self._held)

    async def leave(self) -> None:
        """Request no more callbacks, and return those that have not arrived yet.

        The server reads this before all later messages on the connection.
        """
        messages, self._messages = self._messages, None
        if messages is None:
            return
        asked, self._asking = self._asking, None
        # Nats-py's own ends do not fit: one discards what has just arrived, and the other (`drain`)
        # waits for messages that `fetch` took without marking them as done.
        subscription = messages._sub  # noqa: SLF001 (as said above)
        connection = subscription._conn  # noqa: SLF001 (as above)
        try:
            with _translated():
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await connection._send_unsubscribe(subscription._id)  # noqa: SLF001 (as above)
                    await connection.flush()
                for _ in range(_TURNS):
                    await asyncio.sleep(0)
                await subscription.unsubscribe()
                if asked is not None and asked.done() and not asked.exception():
                    (message,) = asked.result()
                    await message.nak()
        finally:
            if asked is not None:
                asked.cancel()
                # nats-py turns the cancellation into another error, which asyncio would log.
                await asyncio.gather(asked, return_exceptions=True)

    async def waiting(self) -> int:
        """How many callbacks are not delivered yet."""
        with _translated():
            await self._subscription()
            return int((await self._context.stream_info(STREAM)).state.messages)

    async def _subscription(self) -> JetStreamContext.PullSubscription:
        """The consumer; the first use creates it and its stream."""
        if self._messages is None:
            with keeping_cancellation():
                await self._ensure_stream()
                # Also updates the consumer of an older version, unlike pull_subscribe.
                await self._context.add_consumer(
                    STREAM,
                    ConsumerConfig(
                        durable_name=_CONSUMER,
                        ack_policy=AckPolicy.EXPLICIT,
                        ack_wait=self._held,
                        max_deliver=-1,
                        max_ack_pending=-1,
                    ),
                )
                self._messages = await self._context.pull_subscribe_bind(_CONSUMER, STREAM)
        return self._messages

    async def _ensure_stream(self) -> None:
        config = StreamConfig(
            name=STREAM,
            description="Callbacks of builds that are not delivered yet.",
            subjects=[f"{_SUBJECT}.*"],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_msgs=MAX_MESSAGES,
            max_age=_MAX_AGE_SECONDS,
            duplicate_window=_DUPLICATES_SECONDS,
            num_replicas=self._replicas,
        )
        await put_stream(self._context, config)


class CallbackMessage:
    """Implements `Delivery`."""

    def __init__(self, message: Msg, held: float) -> None:
        self._message = message
        self._held = held

    async def hold(self) -> None:
        """Keep JetStream from redelivering it, until this is cancelled."""
        while True:
            await asyncio.sleep(self._held / 4)
            with contextlib.suppress(NATSError):
                await self._message.in_progress()

    @property
    def data(self) -> bytes:
        """The bytes that were published."""
        return self._message.data

    async def done(self) -> None:
        """Remove it, and wait until the server has done so."""
        with _translated():
            await self._message.ack_sync()

    async def postpone(self, seconds: float) -> None:
        """Have it redelivered later."""
        with _translated(), contextlib.suppress(MsgAlreadyAckdError):
            await self._message.nak(delay=max(seconds, 0.001))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (NATSError, OSError, TimeoutError) as error:
        raise Unavailable(str(error) or type(error).__name__) from error
