"""POST /build: a request is admitted, built, and answered while it runs or when it has ended."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Final

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from function_builder.builds.build import Build
from function_builder.builds.slots import NoSlotError
from function_builder.contract.errors import Refusal
from function_builder.contract.result import BuildStatus, progress_lines
from function_builder.server.admission import EarlyAnswer, admit
from function_builder.server.answers import answer_early, busy, refused
from function_builder.server.service import Service
from function_builder.server.spool import Spool

NDJSON: Final = "application/x-ndjson"
HEARTBEAT: Final = 10.0
"""Seconds of silence after which the stream says that the build still runs; the contract: 15."""

_log = structlog.get_logger(__name__)


class BuildEndpoint:
    """The endpoint, as an ASGI application: it answers before, while or after a body arrives."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        accepted = time.monotonic()
        request = Request(scope, receive)
        spool = Spool()
        with suppress(ClientDisconnect), ExitStack() as held:
            held.callback(spool.close)
            try:
                build = Build(await admit(request, self._service, spool, held), accepted)
            except EarlyAnswer as early:
                limit = self._service.settings.max_body_bytes
                await answer_early(early.response, scope, receive, send, max_bytes=limit)
            except Refusal as refusal:
                await refused(refusal)(scope, receive, send)
            except NoSlotError:
                await busy(self._service.slots.limit)(scope, receive, send)
            else:
                await self._build(build, request, send)

    async def _build(self, build: Build, request: Request, send: Send) -> None:
        _log.info("build started", build=build.id, image=build.request.config.image)
        task = self._service.start(build)
        gone = asyncio.create_task(_until_gone(request.receive))
        gone.add_done_callback(_cancel(task, "its client went away"))
        try:
            await _answer(build, request, send)
        finally:
            gone.cancel()
            # Only a broken answer leaves the build running: nobody would hear of its end.
            task.cancel("it could not be answered")
            await asyncio.wait([task, gone])
            self._note_end(build)

    def _note_end(self, build: Build) -> None:
        """Tell the operator."""
        result = build.result
        assert result is not None
        _log.info(
            "build ended",
            build=build.id,
            status=result.status.value,
            seconds=round(result.duration, 3),
            digest=result.digest,
            error=result.error,
        )
        self._service.metrics.builds.labels(result.status.value).inc()


async def _answer(build: Build, request: Request, send: Send) -> None:
    await build.started.wait()
    headers = {"X-Build-Id": build.id}
    if build.unreachable and build.result is not None:
        response = refused(Refusal(503, build.result.error))
    elif NDJSON in request.headers.get("accept", ""):
        await _stream(build, headers, send)
        return
    else:
        response = await _whole(build)
    response.headers.update(headers)
    await response(request.scope, request.receive, send)


async def _whole(build: Build) -> Response:
    """The reply of a client that waits: one JSON object, once the build has ended."""
    result = await build.end()
    status = 200 if result.status is BuildStatus.SUCCESS else 500
    body = dataclasses.replace(result, log=build.log.lines).to_json()
    return Response(body, status, media_type="application/json")


async def _stream(build: Build, headers: Mapping[str, str], send: Send) -> None:
    """The reply of a client that listens: the log as it grows, and always a last line."""
    response = Response(
        headers={**headers, "Cache-Control": "no-transform", "X-Accel-Buffering": "no"},
        media_type=NDJSON,
    )
    del response.headers["content-length"]
    await send({"type": "http.response.start", "status": 200, "headers": response.raw_headers})
    async for lines in build.log.follow(HEARTBEAT):
        for line in progress_lines(lines, build.elapsed):
            await send({"type": "http.response.body", "body": line, "more_body": True})
    last = (await build.end()).to_last_line()
    await send({"type": "http.response.body", "body": last, "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _cancel(task: asyncio.Task[None], reason: str) -> Callable[[asyncio.Task[None]], None]:
    def cancel(gone: asyncio.Task[None]) -> None:
        if not gone.cancelled():
            task.cancel(reason)

    return cancel
