"""The answer to a build: one JSON object when it has ended, or a stream while it runs."""

from __future__ import annotations

import dataclasses
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from function_builder.builds.build import Build, Outcome
from function_builder.contract.answer_signature import AnswerSignature
from function_builder.contract.errors import Refusal
from function_builder.contract.result import BuildStatus, log_json, progress_lines
from function_builder.server.problems import refused_build

NDJSON: Final = "application/x-ndjson"

HEARTBEAT: Final = 10.0
"""Seconds without a log line after which the stream has a heartbeat; the contract allows 15."""

MAX_WHOLE_BYTES: Final = 256 * 1024
"""A log up to this size is encoded at once, so that the answer has a Content-Length."""

_REFUSALS: Final = {Outcome.UNREACHABLE: 503, Outcome.UNSUPPORTED: 400}
"""Outcomes that are not the build's fault, by HTTP status, if they are known before the answer."""


async def answer(
    build: Build, request: Request, send: Send, signature: AnswerSignature | None
) -> None:
    """Answer a request while its build runs, or when it has ended, as its client asks.

    Args:
        build: a running build.
        request: its request.
        send: the ASGI channel.
        signature: signs the answer; None: it is not signed.
    """
    streamed = NDJSON in request.headers.get("accept", "")
    await (build.told.wait() if streamed else build.end())
    if refusal := _refusal(build):
        await refused_build(refusal)(request.scope, request.receive, send)
    elif streamed:
        await _stream(build, send, signature)
    else:
        await _whole(build, send, signature)


def _refusal(build: Build) -> Refusal | None:
    """The answer to a build that ended before it started."""
    if build.refusal is not None:
        return build.refusal
    if build.result is None or build.started or build.outcome not in _REFUSALS:
        return None
    return Refusal(_REFUSALS[build.outcome], build.result.error)


async def _whole(build: Build, send: Send, signature: AnswerSignature | None) -> None:
    """The answer as one JSON object, when the build has ended.

    A long log is encoded in pieces while the client reads it. Otherwise it would be in memory
    several times, with six bytes for each control character.
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
    """Send the log as the first key of an object; returns the end of its list."""
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
    """The answer as a stream: the log while it grows, and always a last line."""
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
