"""Callbacks on their way: when each is sent, sent again, and given up.

A callback waits in a durable stream until it is delivered or given up, so it outlives this process.
A failed attempt is stored as a new message with the next attempt's number and time, and only then
is the old one removed. So a crash at any moment repeats an attempt at most, under the same
`webhook-id`.

Receivers do not delay each other. A host has a bounded number of attempts at a time, and one only
while it does not answer or asks for less. A callback for a host that has no place goes back to the
stream for the time that those before it will take.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

import structlog

from function_builder.contract.builds import CallbackInfo, CallbackState
from function_builder.contract.callback_url import CallbackHosts, CallbackURL
from function_builder.queue.outbound import Answer, DeliveryError, Outbound
from function_builder.queue.port import CallbackOutcome
from function_builder.queue.schedule import Lane, Lanes, next_attempt
from function_builder.queue.webhooks import CallbackKeys, Webhook

_log = structlog.get_logger(__name__)

MAX_ATTEMPTS: Final = 64
"""At a time, in this process."""

_LESS: Final = frozenset({429, 502, 503, 504})
"""Statuses of a receiver that has too much to do, or stands behind a proxy that cannot reach it."""

_GONE: Final = 410
_UNSIGNED_SECONDS: Final = 60.0
_UNAVAILABLE_SECONDS: Final = 1.0
_LOOK_AGAIN_SECONDS: Final = 3600.0


Report: TypeAlias = Callable[[str, str, CallbackInfo], Awaitable[None]]
"""Called with a tenant, a build's id and how its callback goes on; it raises nothing."""


class Unavailable(Exception):
    """The stream did not do what was asked; it keeps what it has."""


class KeysUnavailable(Exception):
    """A callback cannot be signed now."""


class Delivery(Protocol):
    """A callback that the stream has handed out, to this process alone while it is held."""

    @property
    def data(self) -> bytes:
        """What `Webhook.to_message` wrote."""

    async def hold(self) -> None:
        """Keep it from other processes until it is canceled."""

    async def done(self) -> None:
        """Remove it from the stream."""

    async def postpone(self, seconds: float) -> None:
        """Have it handed out again later."""


class Deliveries(Protocol):
    """The stream. Each method may raise `Unavailable`."""

    async def next(self) -> Delivery | None:
        """Wait for a callback that is due; None: none came within some seconds."""

    async def publish(self, webhook: Webhook) -> None:
        """Store a callback once for its id and attempt."""

    async def leave(self) -> None:
        """Take no more callbacks: what is postponed from now on goes to another process."""


class Callbacks:
    """Sends the callbacks of a stream until it is canceled.

    Args:
        deliveries: the stream.
        outbound: sends one.
        hosts: where callbacks may be sent to now; the setting may have changed since the request.
        keys: what signs a tenant's; it raises `KeysUnavailable`.
        count: called with each attempt's outcome.
        report: receives how the callback of a build's end goes on, after each attempt.
        clock: gives the time of the queue, which all its builders share.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        outbound: Outbound,
        hosts: CallbackHosts,
        keys: Callable[[str], CallbackKeys],
        count: Callable[[CallbackOutcome], object],
        *,
        report: Report | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._deliveries = deliveries
        self._outbound = outbound
        self._hosts = hosts
        self._keys = keys
        self._count = count
        self._report = report
        self._clock = clock
        self._lanes = Lanes()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send callbacks as they become due.

        Where it is canceled, the attempts under way are given back to the stream.
        """
        try:
            while True:
                if len(self._tasks) >= MAX_ATTEMPTS:
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                    continue
                try:
                    if delivery := await self._deliveries.next():
                        self._spawn(delivery)
                except Unavailable as error:
                    _log.debug("callbacks wait: their stream is away", reason=str(error))
                    await asyncio.sleep(_UNAVAILABLE_SECONDS)
        finally:
            # First, or those that are given back would come back here, and wait.
            with contextlib.suppress(Unavailable):
                await self._deliveries.leave()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._handle(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, delivery: Delivery) -> None:
        holding = asyncio.create_task(delivery.hold())
        try:
            await self._place(delivery)
        except Unavailable as error:
            # It is handed out again, so the receiver may get it twice under one id.
            _log.warning("the end of a callback's attempt is not stored", reason=str(error))
        except asyncio.CancelledError:
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(1):
                    await delivery.postpone(0)
            raise
        except Exception:  # noqa: BLE001 (a fault in one callback must not end the others)
            _log.exception("a callback failed in the builder; it is tried again")
        finally:
            holding.cancel()

    async def _place(self, delivery: Delivery) -> None:
        """Attempt it, if it is due and its host has a place."""
        try:
            webhook = Webhook.parse(delivery.data)
            url = CallbackURL.parse(webhook.url)
        except ValueError as error:
            _log.error("a message in the stream of callbacks is removed", reason=str(error))
            await delivery.done()
            return
        now = self._clock()
        lane = self._lanes.of(url.host, now)
        if webhook.not_before > now:
            # A clock that was wrong for a while must not hold it for as long.
            await delivery.postpone(min(webhook.not_before - now, _LOOK_AGAIN_SECONDS))
        elif not self._hosts.allows(url):
            reason = "not in callback_hosts any more"
            self._note(CallbackOutcome.FORBIDDEN, webhook, url, reason=reason)
            await self._tell(webhook, CallbackState.FAILED, error=reason)
            await delivery.done()
        elif lane.running >= lane.limit:
            await delivery.postpone(lane.book(now))
        else:
            lane.running += 1
            try:
                await self._attempt(delivery, webhook, url, lane)
            finally:
                lane.running -= 1

    async def _attempt(
        self, delivery: Delivery, webhook: Webhook, url: CallbackURL, lane: Lane
    ) -> None:
        try:
            keys = self._keys(webhook.tenant)
        except KeysUnavailable as error:
            _log.error("callbacks wait: they cannot be signed", reason=str(error))
            await delivery.postpone(_UNSIGNED_SECONDS)
            return
        webhook = dataclasses.replace(webhook, attempt=webhook.attempt + 1)
        began = time.monotonic()
        answer: Answer | None = None
        failure = ""
        try:
            headers = webhook.headers(keys, time.time())
            answer = await self._outbound.post(url, headers, webhook.body)
        except DeliveryError as error:
            failure = str(error)
        lane.note(time.monotonic() - began, well=answer is not None and answer.status not in _LESS)
        await self._settle(delivery, webhook, url, answer, failure)

    async def _settle(
        self,
        delivery: Delivery,
        webhook: Webhook,
        url: CallbackURL,
        answer: Answer | None,
        failure: str,
    ) -> None:
        """Store what follows from an attempt."""
        status = 0 if answer is None else answer.status
        details: dict[str, str | int] = {"status": status} if status else {"reason": failure}
        state, due = CallbackState.FAILED, None
        if 200 <= status < 300:
            state = CallbackState.DELIVERED
            self._note(CallbackOutcome.DELIVERED, webhook, url, **details)
        elif status == _GONE:
            self._note(CallbackOutcome.GONE, webhook, url, **details)
        else:
            now = self._clock()
            asked = None if answer is None else answer.retry_after
            due = next_attempt(webhook, now, asked, random.random())  # noqa: S311 (jitter)
            if due is None:
                self._note(CallbackOutcome.EXPIRED, webhook, url, **details)
            else:
                state = CallbackState.PENDING
                await self._deliveries.publish(dataclasses.replace(webhook, not_before=due))
                details["next_seconds"] = round(due - now)
                self._note(CallbackOutcome.RETRIED, webhook, url, **details)
        await self._tell(webhook, state, status=status, error=failure, next_attempt=due)
        await delivery.done()

    async def _tell(
        self,
        webhook: Webhook,
        state: CallbackState,
        *,
        status: int = 0,
        error: str = "",
        next_attempt: float | None = None,
    ) -> None:
        if self._report is not None and webhook.is_end:
            info = CallbackInfo(
                state=state,
                attempts=webhook.attempt,
                status=status,
                error=error,
                next_attempt=next_attempt,
            )
            await self._report(webhook.tenant, webhook.build_id, info)

    def _note(
        self, outcome: CallbackOutcome, webhook: Webhook, url: CallbackURL, **details: str | int
    ) -> None:
        """Count and log; the URL's path and query may hold a secret, and are left out."""
        self._count(outcome)
        tell = _log.info if outcome is CallbackOutcome.DELIVERED else _log.warning
        tell(
            f"callback {outcome.value}",
            build=webhook.build_id,
            webhook=webhook.id,
            receiver=url.origin,
            attempt=webhook.attempt,
            **details,
        )
