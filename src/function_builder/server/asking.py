"""The headers of a request to build: an asynchronous answer, a callback, an idempotency key."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from starlette.datastructures import Headers

from function_builder.contract.builds import (
    CALLBACK_EVENTS_HEADER,
    CALLBACK_HEADER,
    IDEMPOTENCY_HEADER,
    RESPOND_ASYNC,
)
from function_builder.contract.errors import Refusal
from function_builder.queue.port import Callback
from function_builder.settings import Settings

_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_KEY_STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"(?:;.*)?')
"""A String of RFC 9651, 3.3.3, with or without parameters."""
_BARE_KEY: Final = re.compile(r"[!#-~][!-~]*")
_MAX_KEY: Final = 255


class Asked(NamedTuple):
    """The options in the headers of a request to build.

    Attributes:
        asynchronous: whether the answer is 202, before the build has ended.
        callback: where the build's events are sent; None: nowhere.
        key: the idempotency key; empty: none.
    """

    asynchronous: bool = False
    callback: Callback | None = None
    key: str = ""

    @property
    def queued(self) -> bool:
        """Whether the build goes through the queue."""
        return self.asynchronous or bool(self.key)


def no_queue() -> Refusal:
    """The answer to a request that needs a queue, if there is none."""
    return Refusal(501, "this builder keeps no builds: its setting nats_url is empty")


def read_asked(headers: Headers, settings: Settings, *, has_queue: bool) -> Asked:
    """Read the headers.

    Raises:
        Refusal: 400, one is malformed, or the callback's host is not allowed; 501, there is no
            queue, or callbacks are not enabled.
    """
    names = (CALLBACK_HEADER, IDEMPOTENCY_HEADER)
    if not (any(name in headers for name in names) or _prefers_async(headers)):
        return Asked()
    if not has_queue:
        raise no_queue()
    callback = None
    if url := headers.get(CALLBACK_HEADER):
        # Loaded here, because most requests, and most builders, have no callbacks.
        from function_builder.contract.callback_url import check_url  # noqa: PLC0415 (only with callbacks)
        from function_builder.queue.webhooks import parse_events  # noqa: PLC0415 (as above)

        events = parse_events(headers.get(CALLBACK_EVENTS_HEADER))
        checked = check_url(url, settings.callback_hosts)
        callback = Callback(str(checked), tuple(event.value for event in events))
    return Asked(
        asynchronous=callback is not None or _prefers_async(headers),
        callback=callback,
        key=read_key(headers),
    )


def _prefers_async(headers: Headers) -> bool:
    """Whether `respond-async` is among the preferences (RFC 7240)."""
    text = _QUOTED.sub("", ",".join(headers.getlist("prefer")))
    preferences = (each.partition(";")[0].rstrip(" \t=") for each in text.split(","))
    return RESPOND_ASYNC in (each.strip().lower() for each in preferences)


def read_key(headers: Headers) -> str:
    """The `Idempotency-Key`; empty if the header is absent.

    Raises:
        Refusal: 400.
    """
    values = headers.getlist(IDEMPOTENCY_HEADER)
    if not values:
        return ""
    text = values[0].strip()
    if quoted := _KEY_STRING.fullmatch(text):
        key = re.sub(r'\\(["\\])', r"\1", quoted[1])
    else:
        key = text if _BARE_KEY.fullmatch(text) else ""
    if len(values) > 1 or not 0 < len(key) <= _MAX_KEY:
        raise Refusal(
            400,
            f"{IDEMPOTENCY_HEADER} must be 1 to {_MAX_KEY} printable ASCII characters, "
            "with or without double quotes around them",
        )
    return key
