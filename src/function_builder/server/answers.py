"""The answers that are not a build: refusals, and 429."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
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
    """A refusal in the form of a failed build; 429 in the form that pro-builder gave it."""
    headers = {"Retry-After": str(RETRY_AFTER)} if refusal.status in (429, 503, 507) else {}
    if refusal.status == HTTPStatus.TOO_MANY_REQUESTS:
        return PlainTextResponse(
            f"{refusal.reason}\n", refusal.status, {**headers, "Connection": "close"}
        )
    result = BuildResult(status=BuildStatus.FAILED, error=refusal.reason, build_id=build_id)
    return Response(result.to_json(), refusal.status, headers, "application/json")


async def answer_early(
    response: Response, scope: Scope, receive: Receive, send: Send, *, begun: bool
) -> None:
    """Answer before the body has arrived, so that every client sees it.

    A client that sends its whole body before it reads would meet a reset if the connection were
    closed under it, so the rest is taken and thrown away, for `LINGER_SECONDS`: bytes that are kept
    nowhere need no other bound, and a body that is refused for its size would exceed any. A client
    that sent `Expect: 100-continue` and has not begun to send is answered alone.
    """
    response.headers["Connection"] = "close"

    async def hold_open(message: Message) -> None:
        # The server closes the connection after the last piece of the answer: keep that one back.
        if message["type"] == "http.response.body":
            message = {**message, "more_body": True}
        await send(message)

    await response(scope, receive, hold_open)
    if begun or not any(name == b"expect" for name, _ in scope["headers"]):
        await _discard(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            # A client that goes away sends a message without a body, and no more.
            while (await receive()).get("more_body", False):
                pass
