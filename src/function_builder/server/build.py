"""POST /build: a request is admitted, built, and answered while it runs or when it has ended."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from function_builder.builds.build import Build, Outcome, new_id
from function_builder.builds.phases import Measures
from function_builder.contract.answer_signature import AnswerSignature
from function_builder.contract.errors import Refusal
from function_builder.contract.result import BuildStatus, log_json, progress_lines
from function_builder.server.admission import admit
from function_builder.server.answers import refused
from function_builder.server.metrics import GONE, REASONS, count_build
from function_builder.server.peers import client_address
from function_builder.server.service import Service
from function_builder.server.slots import NoSlot
from function_builder.server.spool import Spool
from function_builder.server.tracing import Trace

NDJSON: Final = "application/x-ndjson"
BUILD_ID_HEADER: Final = "X-Build-Id"
"""On every answer, so that what a client saw can be found in the builder's log."""

BUILD_ID: Final = "function_builder.build_id"
"""Where the scope holds it, for an answer that is not given here."""

HEARTBEAT: Final = 10.0
"""Seconds of silence after which the stream says that the build still runs; the contract: 15."""

MAX_WHOLE_BYTES: Final = 256 * 1024
"""What a log may take in memory to be encoded at once: then the answer has a Content-Length."""

_log = structlog.get_logger(__name__)

_REFUSALS: Final = {Outcome.UNREACHABLE: 503, Outcome.UNSUPPORTED: 400}
"""Ends of a build that are no failure of what was to be built, where that is known in time."""


class BuildEndpoint:
    """The endpoint, as an ASGI application: it answers before, while or after a body arrives."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; its answer, and all lines of the log about it, name the build."""
        request = Request(scope, receive)
        measures = Measures(time.time_ns())
        build_id = scope[BUILD_ID] = new_id()
        with self._service.tracing(request.headers, measures) as trace:
            names = {"build": build_id} | ({"trace_id": trace.id} if trace.id else {})
            with bound_contextvars(**names):
                await self._serve(request, trace, measures, _named(send, build_id))

    async def _serve(self, request: Request, trace: Trace, measures: Measures, send: Send) -> None:
        accepted = time.monotonic()
        scope, receive = request.scope, request.receive
        spool = Spool(self._service.space)
        with ExitStack() as held:
            held.callback(spool.close)
            send = _freeing(send, held)
            try:
                admitted = await admit(request, self._service, spool, held, measures)
            except ClientDisconnect:
                self._note_refusal(request, trace, Refusal(GONE, ""))
            except Refusal as refusal:
                self._note_refusal(request, trace, refusal)
                await refused(refusal)(scope, receive, send)
            else:
                signature = admitted.answer
                build = Build(admitted.request, accepted, scope[BUILD_ID], trace.headers, measures)
                task = self._service.start(build, admitted.place, admitted.signed)
                # A client that reads slowly, or not at all, holds the log, but no slot or spool,
                # nor the context's list of files.
                del admitted
                task.add_done_callback(lambda _: held.close())
                task.add_done_callback(lambda task: self._note_end(request, trace, build, task))
                with self._service.unread.until_read(build.log):
                    await self._attend(build, task, request, send, signature)

    async def _attend(
        self,
        build: Build,
        task: asyncio.Task[None],
        request: Request,
        send: Send,
        signature: AnswerSignature | None,
    ) -> None:
        gone = asyncio.create_task(_until_gone(request.receive))
        gone.add_done_callback(_cancel(task, "its client went away"))
        try:
            await _answer(build, request, send, signature)
        finally:
            gone.cancel()
            # Only a broken answer leaves the build running: its client would not hear of its end.
            task.cancel("it could not be answered")
            await asyncio.wait([task, gone])

    def _note_refusal(self, request: Request, trace: Trace, refusal: Refusal) -> None:
        reason = trace.outcome = REASONS.get(refusal.status, "other")
        client = client_address(request, self._service.settings.trusted_proxies)
        limit = {"limit": refusal.setting} if isinstance(refusal, NoSlot) else {}
        _log.info("build refused", reason=reason, error=refusal.reason, client=client, **limit)
        self._service.metrics.refusals.labels(reason).inc()

    def _note_end(
        self, request: Request, trace: Trace, build: Build, task: asyncio.Task[None]
    ) -> None:
        if build.refusal is not None:
            self._note_refusal(request, trace, build.refusal)
            return
        trace.outcome = build.outcome.value
        if not task.cancelled() and (fault := task.exception()):
            _log.error("a build crashed", exc_info=fault)
        result = build.result
        assert result is not None
        _log.info(
            "build ended",
            outcome=build.outcome.value,
            seconds=round(result.duration, 3),
            phases={phase: round(took, 3) for phase, took in build.measures.seconds().items()},
            digest=result.digest,
            error=result.error,
        )
        count_build(self._service.metrics, build)
        build.release()
        self._service.unread.add(build.log)


def _named(send: Send, build_id: str) -> Send:
    """Put the build's id on the answer, whichever it is."""

    async def send_named(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)[BUILD_ID_HEADER] = build_id
        await send(message)

    return send_named


def _freeing(send: Send, held: ExitStack) -> Send:
    """Give back what a request holds before the last of its answer, not after.

    A client of one slot may send its next request as soon as it has read that.
    """

    async def send_freed(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            held.close()
        await send(message)

    return send_freed


async def _answer(
    build: Build, request: Request, send: Send, signature: AnswerSignature | None
) -> None:
    streamed = NDJSON in request.headers.get("accept", "")
    await (build.told.wait() if streamed else build.end())
    if refusal := _refusal(build):
        await refused(refusal)(request.scope, request.receive, send)
    elif streamed:
        await _stream(build, send, signature)
    else:
        await _whole(build, send, signature)


def _refusal(build: Build) -> Refusal | None:
    """Why the build has ended before it was begun."""
    if build.refusal is not None:
        return build.refusal
    if build.result is None or build.started or build.outcome not in _REFUSALS:
        return None
    return Refusal(_REFUSALS[build.outcome], build.result.error)


async def _whole(build: Build, send: Send, signature: AnswerSignature | None) -> None:
    """The reply of a client that waits: one JSON object, now that the build has ended.

    A long log is encoded while its client reads it. Encoded whole, it would be in memory several
    times, and each control character as six bytes.
    """
    assert build.result is not None
    result = build.result
    failure = _REFUSALS.get(build.outcome, 500)
    status = 200 if result.status is BuildStatus.SUCCESS else failure
    response = Response(status_code=status, media_type="application/json")
    if build.log.size > MAX_WHOLE_BYTES:
        del response.headers["content-length"]
        await _begin(response, send)
        last = await _send_log(build, send, signature) + result.to_json_end()
    else:
        last = dataclasses.replace(result, log=build.log.lines).to_json()
    if signature is not None:
        last = signature.end(last)
    if "content-length" in response.headers:
        response.headers["content-length"] = str(len(last))
        await _begin(response, send)
    await send({"type": "http.response.body", "body": last, "more_body": False})


async def _send_log(build: Build, send: Send, signature: AnswerSignature | None) -> bytes:
    """Send the log as the first key of an object; returns what closes it."""
    before = b'{"log":['
    async for lines in build.log.follow(HEARTBEAT):
        piece = before + log_json(lines)
        before = b","
        if signature is not None:
            signature.update(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    return b"]"


async def _begin(response: Response, send: Send) -> None:
    headers = response.raw_headers
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})


async def _stream(build: Build, send: Send, signature: AnswerSignature | None) -> None:
    """The reply of a client that listens: the log as it grows, and always a last line."""
    response = Response(
        headers={"Cache-Control": "no-transform", "X-Accel-Buffering": "no"},
        media_type=NDJSON,
    )
    del response.headers["content-length"]
    await _begin(response, send)
    async for lines in build.log.follow(HEARTBEAT):
        for line in progress_lines(lines, build.elapsed):
            if signature is not None:
                signature.update(line)
            await send({"type": "http.response.body", "body": line, "more_body": True})
    last = (await build.end()).to_last_line()
    if signature is not None:
        last = signature.end(last)
    await send({"type": "http.response.body", "body": last, "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _cancel(task: asyncio.Task[None], reason: str) -> Callable[[asyncio.Task[None]], None]:
    def cancel(gone: asyncio.Task[None]) -> None:
        if not gone.cancelled():
            task.cancel(reason)

    return cancel
