"""What a builder's answer means: pure reading of statuses, headers and bodies."""

import random
from collections.abc import Callable, Mapping
from typing import Final

from function_builder.client.errors import Refused
from function_builder.contract.result import BuildResult, BuildStatus, parse_result

BUSY: Final = 429
UNAVAILABLE: Final = 503
_LONGEST_REASON: Final = 500
_LONGEST_BACK_OFF: Final = 30.0


def read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refused:
    """Read an answer that started no build; its words come from JSON, text or the status alone."""
    try:
        reason = parse_result(body).error
    except ValueError:
        is_text = headers.get("content-type", "text/plain").startswith("text/plain")
        reason = body.decode("utf-8", "replace") if is_text else ""
    reason = " ".join(reason.split())[:_LONGEST_REASON]
    if not reason and "location" in headers:
        reason = f"it redirects to {headers['location']}: use that address"
    seconds = headers.get("retry-after", "")
    return Refused(
        status,
        reason or "without a word of a builder's: is this its address?",
        retry_after=float(seconds) if seconds.isdecimal() else None,
    )


def retry_delay(
    refused: Refused, attempt: int, *, chance: Callable[[], float] = random.random
) -> float | None:
    """Seconds until a refused request may be sent again; None if waiting would not help.

    429 says that nothing was begun and that a slot will be free; 503 says so only when it names a
    time. Without a time the delay doubles from one second, with each ``attempt`` counted from 0.
    Up to half as much is added by ``chance``, a number from 0 to 1: clients that were refused
    together come back one by one.
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


def read_whole(status: int, headers: Mapping[str, str], body: bytes) -> BuildResult:
    """Read a reply that is one JSON object: a build that ended, well (200) or badly (500).

    Raises:
        Refused: it is no build's answer.
    """
    try:
        result = parse_result(body)
    except ValueError:
        raise read_refusal(status, headers, body) from None
    return result if result.ended else cut_short("the builder answered before the build ended")


def cut_short(reason: str) -> BuildResult:
    """What a build is taken for whose reply ended without saying how the build did."""
    return BuildResult(status=BuildStatus.FAILED, error=reason)
