"""The log of a queued build: batches in a stream while it runs, one object when it has ended.

Lines are numbered from 1, through all attempts of a build. A follower reads each batch from the
stream by its number, so a slow follower needs no memory here. A subscription notifies it of new
batches. The object has the same batches, one per line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import IO, Final, NamedTuple

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NATSError

from function_builder.contract.log import StepText
from function_builder.contract.text import dump_json
from function_builder.queue.connection import Unavailable
from function_builder.queue.jetstream import JetStream
from function_builder.queue.streams import LOG_SUBJECTS, LOGS
from function_builder.store import NotStored, Store

HEARTBEAT_SECONDS: Final = 10.0
"""Seconds without a line after which a follower gets an empty batch."""

_BATCHES: Final = 4
_RANGE_BYTES: Final = 64 << 10
_RETRY_SECONDS: Final = 1.0
_IN_MEMORY: Final = 1 << 20

_log = structlog.get_logger(__name__)


class Batch(NamedTuple):
    """Lines that follow one another.

    Attributes:
        first: the number of the first line.
        lines: the lines; each may be a `StepText`.
    """

    first: int
    lines: Sequence[str]

    def after(self, number: int) -> Batch:
        """The lines after a line number."""
        skipped = max(number - self.first + 1, 0)
        return Batch(self.first + skipped, self.lines[skipped:])


def encode(batch: Batch) -> bytes:
    """A batch as one JSON object, without a newline."""
    document: dict[str, object] = {"first": batch.first, "lines": list(batch.lines)}
    steps = [line.step if isinstance(line, StepText) else "" for line in batch.lines]
    if any(steps):
        document["steps"] = steps
    return dump_json(document)


def decode(data: bytes) -> Batch:
    """Read a batch.

    Raises:
        ValueError: it is not a batch.
    """
    document = json.loads(data)
    lines: Sequence[str] = document["lines"]
    if steps := document.get("steps"):
        pairs = zip(lines, steps, strict=True)
        lines = [StepText(line, step) if step else line for line, step in pairs]
    return Batch(document["first"], lines)


def subject(build_id: str) -> str:
    """Where a build's batches are published."""
    return f"{LOG_SUBJECTS}.{build_id}"


def ended_subject(build_id: str) -> str:
    """The subject that announces the end of a build; no stream stores it."""
    return f"builds.ended.{build_id}"


def object_key(tenant: str, build_id: str) -> str:
    """The name of an ended build's log in the store."""
    return f"logs/{tenant}/{build_id}"


class Logs:
    """Writes and reads logs.

    Args:
        jetstream: has the stream.
        store: has the logs of ended builds.
    """

    def __init__(self, jetstream: JetStream, store: Store) -> None:
        self._jetstream = jetstream
        self._store = store

    async def next_number(self, build_id: str) -> int:
        """The number of the next line after earlier attempts."""
        stored = await self._jetstream.last(LOGS, subject(build_id))
        if stored is None:
            return 1
        batch = decode(stored.data)
        return batch.first + len(batch.lines)

    async def publish(
        self, build_id: str, first: int, batches: AsyncIterator[Sequence[str]]
    ) -> int:
        """Publish batches as they come, and return the number of the line after the last.

        If JetStream is unreachable it waits, because the lines stay in the build's own log.
        """
        async for lines in batches:
            if lines:
                await self._publish_one(build_id, Batch(first, lines))
                first += len(lines)
        return first

    async def _publish_one(self, build_id: str, batch: Batch) -> None:
        data = encode(batch)
        while True:
            try:
                await self._jetstream.publish(
                    subject(build_id), data, message_id=f"{build_id}.{batch.first}"
                )
            except Unavailable:
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def store_whole(
        self, tenant: str, build_id: str, first: int, lines: Sequence[str]
    ) -> int:
        """Store a log as one object, and return how many lines it has.

        Args:
            tenant: whose build it is.
            build_id: which build.
            first: the number of this attempt's first line; earlier lines are in the stream.
            lines: this attempt's.

        Raises:
            StoreError: the store did not accept it.
        """
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
            if first > 1:
                async for batch in self._streamed(build_id):
                    if batch.first < first:
                        file.write(encode(batch) + b"\n")
            await asyncio.to_thread(_write, file, first, lines)
            await self._store.put(object_key(tenant, build_id), _FileReader(file))
        return first - 1 + len(lines)

    async def notify_end(self, build_id: str) -> None:
        """Notify followers at once."""
        with contextlib.suppress(NATSError):
            await self._jetstream.client.publish(ended_subject(build_id), b"")

    async def forget(self, build_id: str) -> None:
        """Remove the batches of an ended build from the stream."""
        with contextlib.suppress(Unavailable):
            await self._jetstream.purge(LOGS, subject(build_id))

    async def follow(
        self,
        tenant: str,
        build_id: str,
        after: int,
        length: Callable[[], Awaitable[int | None]],
    ) -> AsyncGenerator[Batch, None]:
        """Yield the lines after a number, until the build has ended and its log is read.

        Yields an empty batch after `HEARTBEAT_SECONDS` without a line.

        Args:
            tenant: whose build it is.
            build_id: which build.
            after: the number of the last line to leave out; 0: all lines are wanted.
            length: how many lines the log of the ended build has; None while it has not ended.

        Raises:
            Unavailable: JetStream is unreachable.
            StoreError: the store failed.
        """
        sequence = 1
        async with self._new_lines(build_id) as changed:
            while True:
                changed.clear()
                found = await self._jetstream.from_sequence(
                    LOGS, subject(build_id), sequence, _BATCHES
                )
                for stored in found:
                    sequence = stored.sequence + 1
                    batch = decode(stored.data).after(after)
                    if batch.lines:
                        after = batch.first + len(batch.lines) - 1
                        yield batch
                if found:
                    continue
                if (lines := await length()) is not None:
                    if after < lines:
                        async for batch in self.ended(tenant, build_id, after):
                            yield batch
                    return
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await changed.wait()
                except TimeoutError:
                    yield Batch(after + 1, ())

    async def ended(self, tenant: str, build_id: str, after: int) -> AsyncIterator[Batch]:
        """Yield an ended build's lines after a line number; none if its log was deleted."""
        held = b""
        try:
            async for piece in self._store.ranges(object_key(tenant, build_id), _RANGE_BYTES):
                *whole, held = (held + piece).split(b"\n")
                for line in whole:
                    batch = decode(line).after(after)
                    if batch.lines:
                        yield batch
        except NotStored:
            return

    async def _streamed(self, build_id: str) -> AsyncIterator[Batch]:
        sequence = 1
        while found := await self._jetstream.from_sequence(
            LOGS, subject(build_id), sequence, _BATCHES
        ):
            for stored in found:
                sequence = stored.sequence + 1
                yield decode(stored.data)

    @contextlib.asynccontextmanager
    async def _new_lines(self, build_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set when there may be new lines of a log."""
        changed = asyncio.Event()

        async def note(_: Msg) -> None:
            changed.set()

        client = self._jetstream.client
        subscriptions = []
        try:
            # Not one call for both: the first must be undone if the second fails.
            subscriptions.append(await client.subscribe(subject(build_id), cb=note))
            subscriptions.append(await client.subscribe(ended_subject(build_id), cb=note))
            yield changed
        except NATSError as error:
            raise Unavailable(str(error)) from error
        finally:
            for subscription in subscriptions:
                with contextlib.suppress(NATSError):
                    await subscription.unsubscribe()


class _FileReader:
    """A file as a Reader, for one thread."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = file.seek(0, 2)

    def read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)


_BATCH_LINES: Final = 400
_BATCH_CHARS: Final = 32 << 10


def _write(file: IO[bytes], first: int, lines: Sequence[str]) -> None:
    for batch in batches_of(first, lines):
        file.write(encode(batch) + b"\n")


def batches_of(first: int, lines: Sequence[str]) -> Iterable[Batch]:
    """A whole log in batches of at most 400 lines, and of one line above 32 Ki characters."""
    start = chars = 0
    for number, line in enumerate(lines):
        full = number - start == _BATCH_LINES or chars + len(line) > _BATCH_CHARS
        if full and number > start:
            yield Batch(first + start, lines[start:number])
            start, chars = number, 0
        chars += len(line)
    if start < len(lines):
        yield Batch(first + start, lines[start:])
