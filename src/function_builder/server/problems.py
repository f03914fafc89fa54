"""Refusals as problems (RFC 9457), for the routes of builds."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from function_builder.contract.errors import Refusal
from function_builder.contract.text import dump_json
from function_builder.server.answers import RETRY_AFTER, refused

PROBLEM: Final = "application/problem+json"


def problem(refusal: Refusal) -> Response:
    """A refusal as a problem, without a type: the status says what kind it is."""
    document: dict[str, object] = {
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.reason,
    }
    document |= refusal.members
    headers = {"Cache-Control": "no-store"}
    if refusal.status in (429, 503, 507):
        headers["Retry-After"] = str(RETRY_AFTER)
    headers |= refusal.headers
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        # Required beside 401 (RFC 9110, 15.5.2); a signature has no registered scheme.
        headers["WWW-Authenticate"] = "Bearer"
    return Response(dump_json(document), refusal.status, headers, PROBLEM)


def refused_build(refusal: Refusal) -> Response:
    """A refusal of POST /build: a problem if pro-builder does not have this refusal."""
    form = problem if refusal.status in (HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT) else refused
    return form(refusal)
