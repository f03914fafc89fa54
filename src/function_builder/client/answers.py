"""The meaning of a builder's answer: its status, headers and body. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from function_builder.client.address import without_credentials
from function_builder.client.errors import ClientError, Refused
from function_builder.contract.errors import BUSY as BUSY_WORDS
from function_builder.contract.result import BuildResult, BuildStatus, parse_result

BUSY: Final = 429
UNAVAILABLE: Final = 503
ACCEPTED: Final = 202
PROBLEM_TYPE: Final = "application/problem+json"
_MAY_RETURN: Final = frozenset({BUSY, 502, UNAVAILABLE, 504})
"""Statuses after which a reader retries: the builder is busy, shuts down, or starts."""

_LONGEST_REASON: Final = 500
_FIRST_BACK_OFF: Final = 0.5
_LONGEST_BACK_OFF: Final = 30.0

_FROM_A_PROXY: Final = {
    401: "it asks for credentials of its own: give them in the URL, or with a header (--header)",
    413: "it limits a body's size (nginx: client_max_body_size): raise that, or send less by a"
    " .dockerignore",
    502: "it has no good answer from the builder: is the builder running, and for how long may a"
    " request take?",
    503: "it has no builder to pass the request on to: is the builder running and ready?",
    504: "it stopped waiting for the builder (nginx: proxy_read_timeout): raise that, and follow"
    " builds as a stream",
}
"""The meaning of a proxy's status."""

_NOT_A_BUILDER: Final = "not a Function Builder response: check the URL"
_TLS_WANTED: Final = (
    b"plain HTTP request was sent to HTTPS port",
    b"HTTP request to an HTTPS server",
)
_CERTIFICATE_WANTED: Final = (b"No required SSL certificate was sent", b"SSL certificate error")


def read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refused:
    """Read an answer that started no build; its reason is JSON, text or only the status."""
    text = ""
    try:
        is_problem = headers.get("content-type", "").startswith(PROBLEM_TYPE)
        reason = _one_line(_problem(body) if is_problem else parse_result(body).error)
    except ValueError:
        if headers.get("content-type", "text/plain").startswith("text/plain"):
            text = _one_line(body.decode("utf-8", "replace"))
        reason = text if text.startswith(BUSY_WORDS) else ""
    from_builder = bool(reason)
    seconds = headers.get("retry-after", "")
    return Refused(
        status,
        reason or _not_a_builders(status, headers, body, text),
        retry_after=float(seconds) if seconds.isdecimal() else None,
        from_builder=from_builder,
    )


def _problem(body: bytes) -> str:
    """The reason in a problem (RFC 9457).

    Raises:
        ValueError: it is not a problem.
    """
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError("not a problem: no object")  # noqa: TRY004 (as for any other text)
    return str(document.get("detail") or document.get("title") or "")


def _not_a_builders(status: int, headers: Mapping[str, str], body: bytes, text: str) -> str:
    """The meaning of an answer that is not a builder's; `text` is its readable body."""
    if any(words in body for words in _TLS_WANTED):
        return "the port speaks TLS: use https://"
    if any(words in body for words in _CERTIFICATE_WANTED):
        return "the server requires a client certificate (--cert, --key)"
    if "location" in headers:
        return f"it redirects to {without_credentials(headers['location'])}: use that address"
    if status in _FROM_A_PROXY:
        name = headers.get("server", "")
        proxy = f"a proxy ({name})" if name else "a proxy"
        said = f" ({text})" if text else ""
        return f"{proxy} answered{said}: {_FROM_A_PROXY[status]}"
    return f"{text} ({_NOT_A_BUILDER})" if text else _NOT_A_BUILDER


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_REASON]


def _chance() -> float:
    # Loaded here, because most requests are not repeated.
    from random import random

    return random()  # noqa: S311 (it spreads requests)


def retry_delay(
    refused: Refused, attempt: int, *, chance: Callable[[], float] = _chance
) -> float | None:
    """Seconds until a refused request may be sent again; None if waiting would not help.

    A request is retried after 429, and after 503 with `Retry-After`. Without that header the delay
    is one second, and doubles with each `attempt`, counted from 0. `chance`, a number from 0 to 1,
    adds up to half of the delay, so that clients that were refused together retry one by one.
    """
    if refused.status not in (BUSY, UNAVAILABLE):
        return None
    if refused.retry_after is not None:
        delay = max(1.0, refused.retry_after)
    elif refused.status == BUSY:
        delay = min(2.0**attempt, _LONGEST_BACK_OFF)
    else:
        return None
    return delay * (1 + chance() / 2)


def lost_delay(
    error: ClientError, attempt: int, *, chance: Callable[[], float] = _chance
) -> float | None:
    """Seconds until the client reconnects to a build; None if that would not help.

    The delay doubles with each `attempt`, counted from 0. `chance`, a number from 0 to 1, adds up
    to half of the delay.
    """
    if isinstance(error, Refused) and error.status not in _MAY_RETURN:
        return None
    return min(_FIRST_BACK_OFF * 2.0**attempt, _LONGEST_BACK_OFF) * (1 + chance() / 2)


def read_document(body: bytes) -> Mapping[str, Any]:
    """Read an answer that is a JSON object.

    Raises:
        Refused: it is another.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refused(200, _NOT_A_BUILDER, from_builder=False)
    return document


def read_accepted(status: int, body: bytes) -> Mapping[str, Any]:
    """Read an answer that a build was queued.

    Raises:
        Refused: it says something else.
    """
    document = read_document(body)
    if status != ACCEPTED or not isinstance(document.get("buildId"), str):
        raise Refused(
            status,
            "it answered without queueing the build: it is not a builder that keeps builds, and may"
            " have built at once",
            from_builder=False,
        )
    return document


def read_whole(status: int, headers: Mapping[str, str], body: bytes) -> BuildResult:
    """Read a reply that is one JSON object: a build that ended, well (200) or badly (500).

    Raises:
        Refused: it is not a build's answer.
    """
    try:
        result = parse_result(body)
    except ValueError:
        raise read_refusal(status, headers, body) from None
    return result if result.ended else cut_short("the builder answered before the build ended")


def cut_short(reason: str) -> BuildResult:
    """The result of a build whose reply ended without a result."""
    return BuildResult(status=BuildStatus.FAILED, error=reason)
