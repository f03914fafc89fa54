"""Answers to requests that are not built: refusals, and 429."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.responses import PlainTextResponse, Response

from function_builder.contract.answer_signature import AnswerSignature
from function_builder.contract.errors import Refusal
from function_builder.contract.result import BuildResult, BuildStatus
from function_builder.contract.text import dump_json

RETRY_AFTER: Final = 5
"""Seconds, about the duration of a build."""


def document(
    content: object,
    answer: AnswerSignature | None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A document in JSON, signed if the request was."""
    body = dump_json(content)
    body = body if answer is None else answer.end(body)
    stored = {"Cache-Control": "no-store"}
    return Response(body, status, {**stored, **(headers or {})}, "application/json")


def refused(refusal: Refusal, build_id: str = "") -> Response:
    """A refusal in the form of a failed build; 429 in the form that pro-builder gave it."""
    headers = {"Retry-After": str(RETRY_AFTER)} if refusal.status in (429, 503, 507) else {}
    headers |= refusal.headers
    if refusal.status == HTTPStatus.TOO_MANY_REQUESTS:
        return PlainTextResponse(
            f"{refusal.reason}\n", refusal.status, {**headers, "Connection": "close"}
        )
    result = BuildResult(status=BuildStatus.FAILED, error=refusal.reason, build_id=build_id)
    return Response(result.to_json(), refusal.status, headers, "application/json")
