"""One connection to NATS: connecting, reconnecting, and what its errors mean."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import structlog
from nats.errors import Error as NATSError
from nats.js import JetStreamContext
from nats.js.errors import APIError

from function_builder.queue.access import Access, NATSClient, reason, refusal
from function_builder.queue.port import QueueUnavailable

_log = structlog.get_logger(__name__)

REQUEST_SECONDS: Final = 5.0
"""How long one request to JetStream may take."""

_RECONNECT_SECONDS: Final = 1
_CLOSE_SECONDS: Final = 0.5

_WRONG_LAST_SEQUENCE: Final = (10071, 10164)
"""JetStream's codes if the subject's last message is not the expected one."""

_NO_ROOM: Final = (10023, 10047, 10077, 10122)
"""JetStream's codes for insufficient resources, insufficient storage, a full stream, and a stream
that is larger than its account allows."""


class Unavailable(QueueUnavailable):
    """A request to JetStream failed: JetStream is unreachable, or it has no room."""


class Rejected(Unavailable):
    """NATS refuses this builder's credentials or its certificate, so waiting does not help."""


class Full(Unavailable):
    """JetStream has no room for another message, or for another stream."""


class Changed(Exception):
    """A subject's last message is not the one that was expected."""


@contextlib.contextmanager
def keeping_cancellation() -> Iterator[None]:
    """A block of calls of nats-py, at whose end a cancellation that they have lost is raised.

    nats-py waits with `asyncio.wait_for`. Before Python 3.12, this returns an answer that arrives
    together with a cancellation, and the cancellation is lost. A task that only a cancellation ends
    would then run forever.
    """
    task = asyncio.current_task()
    assert task is not None, "only a task can be cancelled"
    before = task.cancelling()
    try:
        yield
    except Exception as error:
        if task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
    if task.cancelling() > before:
        raise asyncio.CancelledError


class Connection:
    """One connection to NATS, which reconnects by itself.

    Attributes:
        client: nats-py's connection.
        context: nats-py's calls of JetStream.
        reconnected: set, and replaced by a new event, after each reconnect.

    Args:
        access: how to reach it.
        failed: called after each failed request; its argument is whether JetStream has no room.
    """

    def __init__(
        self, access: Access, *, failed: Callable[[bool], None] = lambda _full: None
    ) -> None:
        self.client = NATSClient()
        self._failed = failed
        self.reconnected = asyncio.Event()
        self._access = access
        self.context: JetStreamContext = self.client.jetstream(timeout=REQUEST_SECONDS)
        self._lost = ""
        self._was_connected = False
        self._up = asyncio.Event()

    async def connect(self) -> None:
        """Connect for the first time, without a timeout.

        Raises:
            Rejected: NATS refuses the credentials, or a file cannot be used.
        """
        access = self._access
        try:
            self.client.key = key = access.key_of_user()
            tls = access.tls()
            self.client.needs_tls = tls is not None
            await self.client.connect(
                servers=access.url.split(","),
                name="function-builder",
                signature_cb=key.sign if key else None,
                user_jwt_cb=key.jwt if key and access.credentials else None,
                tls=tls,
                # This also applies to the first connection.
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RECONNECT_SECONDS,
                connect_timeout=2,
                ping_interval=10,
                max_outstanding_pings=2,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_reconnected,
            )
        except (NATSError, OSError, ValueError, Rejected) as error:
            # After a failed handshake, nats-py waits forever for the end of the connection.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self.client.close()
            raise Rejected(reason(error)) from error
        self._was_connected = True
        self._up.set()

    async def close(self) -> None:
        """Send buffered messages, and disconnect; within two seconds, whatever NATS does."""
        for ending in (self.client.flush, self.client.close):
            with contextlib.suppress(NATSError, OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await ending()

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self.client.is_connected

    def require_connected(self) -> None:
        """Check that there is a connection: a request, and who asks with it, would wait for one.

        Raises:
            Unavailable: there is none.
        """
        if not self.connected:
            raise Unavailable("the queue cannot be reached")

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """A block with requests, whose errors of nats-py become `Changed`, `Full` or `Unavailable`.

        Without a connection it waits for one first, because nats-py would keep a message and send
        it after the request has failed.
        """
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await self._up.wait()
            with keeping_cancellation():
                yield
        except APIError as error:
            if error.err_code in _WRONG_LAST_SEQUENCE:
                raise Changed from error
            full = error.err_code in _NO_ROOM
            self._failed(full)
            if full:
                raise Full(error.description or "no room") from error
            raise Unavailable(error.description or str(error)) from error
        except (NATSError, OSError, TimeoutError) as error:
            self._failed(False)
            raise Unavailable(str(error) or "no answer") from error

    async def _on_error(self, error: Exception) -> None:
        self._lost = reason(error)
        if not self._was_connected and (refused := refusal(error)):
            # nats-py would retry forever; this error ends its `connect`.
            raise Rejected(refused)
        _log.debug("NATS", error=self._lost)

    async def _on_disconnected(self) -> None:
        self._up.clear()
        if not self.client.is_closed:
            _log.warning("NATS is unreachable: queued builds wait", reason=self._lost)

    async def _on_reconnected(self) -> None:
        _log.info("NATS is reachable again")
        self._up.set()
        self.reconnected.set()
        self.reconnected = asyncio.Event()
