"""The answers that are not a build: refusals, and 429."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from function_builder.contract.errors import Refusal
from function_builder.contract.result import BuildResult, BuildStatus

RETRY_AFTER: Final = 5
"""Seconds; a build takes about as long."""

LINGER_SECONDS: Final = 30.0
"""How long the rest of a refused body is taken, for clients that send it all before they read."""


def refused(refusal: Refusal, build_id: str = "") -> Response:
    """A refusal in the form of a failed build."""
    result = BuildResult(status=BuildStatus.FAILED, error=refusal.reason, build_id=build_id)
    headers = {"Retry-After": str(RETRY_AFTER)} if refusal.status in (503, 507) else {}
    return Response(result.to_json(), refusal.status, headers, "application/json")


def busy(limit: int) -> Response:
    """Every slot is taken; pro-builder's words, which clients look for."""
    return PlainTextResponse(
        f"Concurrent request limit exceeded. Max concurrent requests: {limit}\n",
        status_code=429,
        headers={"Retry-After": str(RETRY_AFTER), "Connection": "close"},
    )


async def answer_early(
    response: Response, scope: Scope, receive: Receive, send: Send, *, begun: bool, max_bytes: int
) -> None:
    """Answer before the body has arrived, so that every client sees it.

    A client that sends its whole body before it reads would meet a reset if the connection were
    closed under it, so the rest is taken and thrown away, within bounds. One that sent
    `Expect: 100-continue` and has not begun to send is answered alone.
    """
    response.headers["Connection"] = "close"

    async def hold_open(message: Message) -> None:
        # The server closes the connection after the last piece of the answer: keep that one back.
        if message["type"] == "http.response.body":
            message = {**message, "more_body": True}
        await send(message)

    await response(scope, receive, hold_open)
    if begun or not any(name == b"expect" for name, _ in scope["headers"]):
        await _discard(receive, max_bytes)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive, max_bytes: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            more = True
            while more and max_bytes > 0:
                # A client that goes away sends a message without a body, and no more.
                message = await receive()
                max_bytes -= len(message.get("body", b""))
                more = message.get("more_body", False)
