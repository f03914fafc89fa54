"""Sends the log of a queued build to one reader, which may be slow or disconnect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from function_builder.contract.answer_signature import AnswerSignature
from function_builder.contract.builds import BuildInfo
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import Reason
from function_builder.contract.result import BuildResult, BuildStatus, log_json, progress_lines
from function_builder.contract.sse import END, EVENT_STREAM, HEARTBEAT, Event
from function_builder.contract.text import dump_json
from function_builder.queue.port import Builds, LogBatch
from function_builder.server.answers import refused
from function_builder.server.peers import until_gone
from function_builder.server.service import Service

NDJSON: Final = "application/x-ndjson"
PLAIN: Final = "text/plain; charset=utf-8"

STREAM_HEADERS: Final = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
"""Keep caches and proxies from buffering a stream."""

_AFTER_ALL_LINES: Final = 1 << 53
"""More lines than a log can have: a reader that starts there only gets the end."""

_RECONNECT: Final = b"retry: 1000\n\n"
"""Milliseconds after which a browser reconnects."""

_LOST: Final = BuildResult(
    status=BuildStatus.FAILED,
    error=(
        "the builder can no longer follow the build, which still runs: "
        "send the request again with the same Idempotency-Key"
    ),
    reason=Reason.SERVICE.value,
    retryable=True,
)


class _LostError(Exception):
    """This builder cannot follow the build to its end."""


@dataclass(slots=True, eq=False)
class Follower:
    """One reader of one build.

    Attributes:
        service: what the endpoints share; it has a queue.
        request: the reader's.
        send: the ASGI channel.
        tenant: the tenant of the build.
        info: the build.
        answer: signs the answer; None: it is not signed.
        after: the number of the last line that the reader has.
        over: returns when the reader loses its permission; None: it may read to the end.
    """

    service: Service
    request: Request
    send: Send
    tenant: str
    info: BuildInfo
    answer: AnswerSignature | None = None
    after: int = 0
    over: Callable[[], Coroutine[Any, Any, None]] | None = None
    _started: bool = False

    async def send_lines(self) -> None:
        """Send the log as NDJSON. Without its last line it is incomplete: the client resumes it."""
        await self._start(NDJSON)
        await self._send_until_end(self._lines())

    async def send_events(self) -> None:
        """Send the log as server-sent events. Without the event `end`, the client resumes it."""
        await self._start(EVENT_STREAM)
        await self._send_until_end(self._events())

    async def send_text(self) -> None:
        """Send the log as plain text, as a browser shows it."""
        await self._start(PLAIN)
        await self._send_until_end(self._text())

    async def answer_build(self) -> None:
        """Answer POST /build in the form of a synchronous build."""
        if NDJSON in self.request.headers.get("accept", ""):
            await self._start(NDJSON)
            await self._send_until_end(self._lines(), lost=_LOST.to_last_line())
        else:
            await self._send_until_end(self._whole())

    async def _send_until_end(
        self, sending: Coroutine[Any, Any, None], *, lost: bytes = b""
    ) -> None:
        """Send until the build, the reader's connection, its right to read, or the builder ends.

        Args:
            sending: sends the whole answer.
            lost: the last piece of an answer that has started and cannot be completed.
        """
        task = asyncio.create_task(sending, name=f"follower of {self.info.id}")
        ends = [asyncio.create_task(until_gone(self.request))]
        if self.over is not None:
            ends.append(asyncio.create_task(self.over()))
        for end in ends:
            end.add_done_callback(lambda _: task.cancel())
        self.service.followers.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self.service.followers.discard(task)
            for each in (task, *ends):
                each.cancel()
            await asyncio.wait([task, *ends])
        if task.cancelled() or isinstance(task.exception(), _LostError | Refusal):
            if self._started:
                await self._piece(lost, more=False)
            else:
                await self._refuse(Refusal(503, _LOST.error))
        else:
            task.result()

    async def _lines(self) -> None:
        async with aclosing(self._follow(self.after)) as batches:
            async for batch in batches:
                for line in progress_lines(batch.lines, self._elapsed(), first=batch.first):
                    await self._sign_and_send(line)
        last = (await self._end()).to_last_line()
        await self._piece(last if self.answer is None else self.answer.end(last), more=False)

    async def _events(self) -> None:
        await self._piece(_RECONNECT)
        async with aclosing(self._follow(self.after)) as batches:
            async for batch in batches:
                numbered = enumerate(batch.lines, batch.first)
                events = [Event(line, id=str(number)).to_bytes() for number, line in numbered]
                await self._piece(b"".join(events) or HEARTBEAT)
        await self._end()
        end = Event(dump_json(self.info.to_document()).decode(), END)
        await self._piece(end.to_bytes(), more=False)

    async def _text(self) -> None:
        async with aclosing(self._follow(self.after)) as batches:
            async for batch in batches:
                text = "".join(f"{line}\n" for line in batch.lines)
                await self._piece(text.encode("utf-8", "replace"))
        await self._piece(b"", more=False)

    async def _whole(self) -> None:
        async with aclosing(self._follow(_AFTER_ALL_LINES)) as batches:
            async for _ in batches:
                pass
        result = await self._end()
        if result.reason == Reason.BUSY:
            await self._refuse(Refusal(429, result.error))
            return
        status = 200 if result.status is BuildStatus.SUCCESS else 500
        await self._start("application/json", status)
        before = b'{"log":['
        async with aclosing(self._follow(0)) as batches:
            async for batch in batches:
                if batch.lines:
                    await self._sign_and_send(before + log_json(batch.lines))
                    before = b","
        last = result.to_json() if before != b"," else b"]" + result.to_json_end()
        await self._piece(last if self.answer is None else self.answer.end(last), more=False)

    def _follow(self, after: int) -> AsyncGenerator[LogBatch, None]:
        return self._builds.follow(self.tenant, self.info.id, after=after)

    @property
    def _builds(self) -> Builds:
        assert self.service.builds is not None
        return self.service.builds

    async def _end(self) -> BuildResult:
        info = await self._builds.get(self.tenant, self.info.id)
        if info is None or info.result is None:
            raise _LostError
        self.info = info
        return info.result

    def _elapsed(self) -> float:
        until = time.time() if self.info.ended is None else self.info.ended
        return max(0.0, until - self.info.created)

    async def _sign_and_send(self, piece: bytes) -> None:
        if self.answer is not None:
            self.answer.update(piece)
        await self._piece(piece)

    async def _piece(self, piece: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _start(self, media_type: str, status: int = 200) -> None:
        response = Response(status_code=status, headers=STREAM_HEADERS, media_type=media_type)
        del response.headers["content-length"]
        headers = response.raw_headers
        self._started = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def _refuse(self, refusal: Refusal) -> None:
        await refused(refusal)(self.request.scope, self.request.receive, self.send)
