"""Send callbacks, and retry them until they are delivered or expire.

A callback waits in a durable stream, so a restart of this process does not lose it. After a failed
attempt, a new message with the next attempt's number and time is stored, and then the old message
is removed. So a crash at any moment repeats one attempt at most, with the same `webhook-id`.

If a host has reached its limit of concurrent attempts (`schedule`), the callback returns to the
stream until the others are expected to be done.
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
"""Concurrent attempts of this process."""

_LESS: Final = frozenset({429, 502, 503, 504})
"""Statuses of an overloaded receiver, or of a proxy that cannot reach its receiver."""

_GONE: Final = 410
_UNSIGNED_SECONDS: Final = 60.0
_UNAVAILABLE_SECONDS: Final = 1.0
_LOOK_AGAIN_SECONDS: Final = 3600.0


Report: TypeAlias = Callable[[str, str, CallbackInfo], Awaitable[None]]
"""Called with a tenant, a build's id and the state of its callback; it raises nothing."""


class Unavailable(Exception):
    """A request to the stream failed; the stream keeps its callbacks."""


class KeysUnavailable(Exception):
    """A callback cannot be signed now."""


class Delivery(Protocol):
    """A callback that the stream has delivered to this process only, while it is held."""

    @property
    def data(self) -> bytes:
        """The output of `Webhook.to_message`."""

    async def hold(self) -> None:
        """Keep the stream from redelivering it, until this is cancelled."""

    async def done(self) -> None:
        """Remove it from the stream."""

    async def postpone(self, seconds: float) -> None:
        """Have it redelivered later."""


class Deliveries(Protocol):
    """The stream. Each method may raise `Unavailable`."""

    async def next(self) -> Delivery | None:
        """Wait for a callback; None: none arrived within some seconds."""

    async def publish(self, webhook: Webhook) -> None:
        """Store a callback once for its id and attempt."""

    async def leave(self) -> None:
        """Request no more callbacks: from now on, another process gets the postponed ones."""


class Callbacks:
    """Sends the callbacks of a stream until it is cancelled.

    Args:
        deliveries: the stream.
        outbound: sends one.
        hosts: the allowed hosts; the setting may have changed since the request.
        keys: gives a tenant's keys for signing; it raises `KeysUnavailable`.
        count: called with each attempt's outcome.
        report: called after each attempt with the state of the callback of a build's end.
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

        If it is cancelled, running attempts are returned to the stream.
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
                    _log.debug("callbacks wait: their stream cannot be reached", reason=str(error))
                    await asyncio.sleep(_UNAVAILABLE_SECONDS)
        finally:
            # First, because otherwise the stream would redeliver the returned ones to this process.
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
            # It is redelivered, so the receiver may get it twice with one id.
            _log.warning("the result of a callback's attempt is not stored", reason=str(error))
        except asyncio.CancelledError:
            with contextlib.suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(1):
                    await delivery.postpone(0)
            raise
        except Exception:  # noqa: BLE001 (a fault in one callback must not end the others)
            _log.exception("a callback failed in the builder; it is retried")
        finally:
            holding.cancel()

    async def _place(self, delivery: Delivery) -> None:
        """Attempt it if it is due and its host has fewer attempts than its limit."""
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
            # At most an hour, because the clock may have been wrong when the time was set.
            await delivery.postpone(min(webhook.not_before - now, _LOOK_AGAIN_SECONDS))
        elif not self._hosts.allows(url):
            reason = "its host is no longer in callback_hosts"
            self._note(CallbackOutcome.FORBIDDEN, webhook, url, reason=reason)
            await self._report_attempt(webhook, CallbackState.FAILED, error=reason)
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
        started = time.monotonic()
        answer: Answer | None = None
        failure = ""
        try:
            headers = webhook.headers(keys, time.time())
            answer = await self._outbound.post(url, headers, webhook.body)
        except DeliveryError as error:
            failure = str(error)
        lane.note(
            time.monotonic() - started, well=answer is not None and answer.status not in _LESS
        )
        await self._settle(delivery, webhook, url, answer, failure)

    async def _settle(
        self,
        delivery: Delivery,
        webhook: Webhook,
        url: CallbackURL,
        answer: Answer | None,
        failure: str,
    ) -> None:
        """Store the result of an attempt."""
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
        await self._report_attempt(webhook, state, status=status, error=failure, next_attempt=due)
        await delivery.done()

    async def _report_attempt(
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
        """Count and log it, without the URL's path and query, which may contain a secret."""
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
