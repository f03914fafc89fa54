"""The details that BuildKit adds to a failed solve's status: JSON instead of protobuf.

Sources: BuildKit's `solver/errdefs` (Source, Vertex, Frontend) and
`frontend/gateway/pb/exit.go` (ExitMessage), encoded by `util/grpcerrors/grpcerrors.go`.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from aiobuildkit.errors import ErrorDetail, RPCError, SolveError, SourceLocation, SourceRange

__all__ = ["solve_error"]


def solve_error(error: RPCError) -> SolveError:
    """The same error, with the fields that its details contain."""
    sources = _found(error, "errdefs.Source+json")
    exits = _found(error, "gatewayapi.ExitMessage+json")
    vertexes = _found(error, "errdefs.Vertex+json")
    return SolveError(
        error.code,
        error.message,
        error.details,
        source=_source(sources[0]) if sources else None,
        exit_code=_integer(exits[0], "Code") if exits else None,
        vertex=str(vertexes[0].get("digest", "")) or None if vertexes else None,
        in_frontend=bool(_found(error, "errdefs.Frontend+json")),
    )


def _found(error: RPCError, name: str) -> list[dict[str, Any]]:
    decoded = (_decode(each) for each in error.details if each.type_url.endswith(name))
    return [detail for detail in decoded if detail is not None]


def _decode(detail: ErrorDetail) -> dict[str, Any] | None:
    """A detail, or None: one that cannot be parsed must not hide the error itself."""
    try:
        value = json.loads(detail.value)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _source(detail: dict[str, Any]) -> SourceLocation | None:
    info = detail.get("info")
    if not isinstance(info, dict):
        return None
    try:
        text = base64.b64decode(str(info.get("data", ""))).decode("utf-8", "replace")
    except ValueError:
        text = ""
    ranges = detail.get("ranges")
    ranges = [each for each in ranges if isinstance(each, dict)] if isinstance(ranges, list) else []
    return SourceLocation(str(info.get("filename", "")), tuple(map(_range, ranges)), text)


def _range(detail: dict[str, Any]) -> SourceRange:
    start, end = detail.get("start") or {}, detail.get("end") or {}
    return SourceRange(
        _integer(start, "line"),
        _integer(start, "character"),
        _integer(end, "line"),
        _integer(end, "character"),
    )


def _integer(detail: Any, key: str) -> int:
    value = detail.get(key, 0) if isinstance(detail, dict) else 0
    return value if isinstance(value, int) else 0
