"""A callback in the form of Standard Webhooks, with OpenFaaS' headers. No I/O.

The form: https://github.com/standard-webhooks/standard-webhooks, `spec/standard-webhooks.md` 1.0.0.
The body is `{"type", "timestamp", "data"}`. `webhook-signature` has one HMAC-SHA256 of
`id.timestamp.body` for each current secret. OpenFaaS' queue-worker (`main.go`, `postResult`) sends
`X-Call-Id`, `X-Function-Status` and `X-Duration-Seconds`.

`X-Build-Signature` is the HMAC of the body with the payload secret, as on a request. An attacker
cannot replay a callback as a request, because its body is JSON, and a request's body is a tar.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from function_builder import __version__
from function_builder.contract.builds import (
    CALL_ID_HEADER,
    CALLBACK_EVENTS_HEADER,
    BuildInfo,
    BuildState,
    rfc3339,
)
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.signature import SIGNATURE_HEADER, sign
from function_builder.contract.text import dump_json
from function_builder.queue.port import EVENT_OF_END

MAX_BODY_BYTES: Final = 20_000
"""The limit of a body, as the specification advises."""

_PREFIX: Final = "whsec_"
_SECRET_BYTES: Final = range(24, 65)
_LONG_TEXTS: Final = (4096, 512, 64)
_LEFT_OUT: Final = frozenset({"log", "steps", "callback"})
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

_STATUSES: Final = {
    BuildState.SUCCESS: 200,
    BuildState.FAILED: 500,
    # The metrics use this status for a client that disconnected before the answer.
    BuildState.CANCELLED: 499,
}
"""The status of `POST /build` for a build with this end."""


class EventType(StrEnum):
    """What happened to a build; the names follow CDEvents."""

    QUEUED = "build.queued"
    STARTED = "build.started"
    FINISHED = EVENT_OF_END


def parse_events(header: str | None) -> tuple[EventType, ...]:
    """Read `X-Callback-Events`; absent or empty: `build.finished`.

    Raises:
        Refusal: 400, it names an event that does not exist.
    """
    words = [word.strip() for word in (header or "").split(",")]
    named = [word for word in words if word]
    unknown = [word for word in named if word not in set(EventType)]
    if unknown:
        known = ", ".join(EventType)
        raise Refusal(
            400, f"{CALLBACK_EVENTS_HEADER}: {shown(unknown[0])} is not an event: use {known}"
        )
    # Each event once, in the order in which they happen.
    return tuple(event for event in EventType if event in named) or (EventType.FINISHED,)


def parse_secret(text: str) -> bytes:
    """The key in a secret's text, `whsec_` and the base64 of 24 to 64 bytes.

    Padding is required, because the Go library of Standard Webhooks requires it.

    Raises:
        ValueError: it has another form; the message does not contain the text.
    """
    if not text.startswith(_PREFIX):
        raise ValueError(f"must begin with {_PREFIX}")
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"must be base64 after {_PREFIX}, padding included") from None
    if len(key) not in _SECRET_BYTES:
        raise ValueError(f"must have 24 to 64 bytes, and has {len(key)}")
    return key


def format_secret(key: bytes) -> str:
    """The text of a secret's key."""
    return _PREFIX + base64.b64encode(key).decode()


class CallbackKeys(NamedTuple):
    """The keys that sign the callbacks of a tenant.

    Attributes:
        webhook: the keys of the webhook secrets; during a rotation, the new and the old one.
        payload: the payload secret; None: the builder does not use signatures.
    """

    webhook: Sequence[bytes]
    payload: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One event of one build, which is sent to one URL.

    Attributes:
        id: `webhook-id`, equal in every attempt and on every replica.
        url: the receiver, as `CallbackURL` writes it.
        tenant: the tenant whose secrets sign it.
        build_id: `X-Call-Id`.
        body: the JSON that is sent and signed.
        status: `X-Function-Status`, the status of `POST /build`; 0: the build has not ended.
        seconds: `X-Duration-Seconds`, how long the build took.
        created: when the event happened, in UTC seconds.
        attempt: how many attempts have been made.
        not_before: when the next attempt is due, in UTC seconds.
    """

    id: str
    url: str
    tenant: str
    build_id: str
    body: bytes
    status: int = 0
    seconds: float = 0.0
    created: float = 0.0
    attempt: int = 0
    not_before: float = 0.0

    @property
    def is_end(self) -> bool:
        """Whether the event is the build's end."""
        return bool(self.status)

    def to_message(self) -> bytes:
        """The form in which the stream stores it."""
        return dump_json(asdict(self) | {"body": self.body.decode()})

    @classmethod
    def parse(cls, data: bytes) -> Webhook:
        """Read the output of `to_message`.

        Raises:
            ValueError: it has another form.
        """
        try:
            fields = json.loads(data)
            return cls(**fields | {"body": fields["body"].encode()})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a callback: {error}") from error

    def headers(self, keys: CallbackKeys, now: float) -> dict[str, str]:
        """The headers of one attempt.

        Args:
            keys: the keys that sign it.
            now: when the attempt is made, in UTC seconds.
        """
        timestamp = int(now)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"function-builder/{__version__}",
            "webhook-id": self.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(keys.webhook, self.id, timestamp, self.body),
            CALL_ID_HEADER: self.build_id,
        }
        if self.status:
            headers["X-Function-Status"] = str(self.status)
            headers["X-Duration-Seconds"] = f"{self.seconds:f}"
        if keys.payload is not None:
            headers[SIGNATURE_HEADER] = sign(keys.payload, self.body)
        return headers


def make_webhook(event: EventType, info: BuildInfo, *, url: str, tenant: str) -> Webhook:
    """The callback for an event of a build.

    Args:
        event: what happened.
        info: the build after it.
        url: the receiver, checked.
        tenant: whose build it is.
    """
    moments = {EventType.QUEUED: info.created, EventType.STARTED: info.started}
    moment = moments.get(event, info.ended)
    created = info.created if moment is None else moment
    return Webhook(
        id=webhook_id(info.id, event, info.attempt),
        url=url,
        tenant=tenant,
        build_id=info.id,
        body=make_body(event, created, info.to_document()),
        status=_STATUSES.get(info.state, 0),
        seconds=0.0 if info.result is None else info.result.duration,
        created=created,
    )


def signatures(secrets: Sequence[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each key, separated by spaces."""
    signed = b"%b.%d.%b" % (webhook_id.encode(), timestamp, body)
    digests = [hmac.digest(key, signed, "sha256") for key in secrets]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def webhook_id(build_id: str, event: EventType, attempt: int = 1) -> str:
    """The id of a build's event; each start of a build has its own id.

    It contains no full stop, because `id.timestamp.body` is signed.
    """
    if not _ID.fullmatch(build_id):
        raise ValueError(f"not a build's id: {build_id!r}")
    again = f"_{attempt}" if event is EventType.STARTED and attempt > 1 else ""
    return f"msg_{build_id}_{event.name.lower()}{again}"


def make_body(event: EventType, created: float, document: Mapping[str, Any]) -> bytes:
    """The body for a build's document, smaller than `MAX_BODY_BYTES`.

    The log is left out. If the rest is too large, its largest values are reduced first. Of a text,
    the first 4096 bytes remain (or 512, or 64). A list or an object is left out. `truncated` lists
    the names of these values.

    Args:
        event: its type.
        created: when it happened, in UTC seconds.
        document: the answer of `GET /builds/{id}`.
    """
    data = {name: value for name, value in document.items() if name not in _LEFT_OUT}
    envelope = {"type": event.value, "timestamp": rfc3339(created)}
    reduced: list[str] = []
    for limit in _LONG_TEXTS:
        while len(body := dump_json(envelope | {"data": data})) >= MAX_BODY_BYTES:
            name = max(data, key=lambda name: _size(data[name]))
            if _size(data[name]) <= limit:
                break
            if isinstance(data[name], str):
                data[name] = _cut(data[name], limit)
            else:
                del data[name]
            data["truncated"] = reduced = [*dict.fromkeys([*reduced, name])]
    return body


def _size(value: object) -> int:
    return len(dump_json(value))


def _cut(text: str, limit: int) -> str:
    """The beginning of a text whose JSON has at most `limit` bytes."""
    # Each character differs from the average by at most 6 bytes, so this takes a few rounds.
    while (size := _size(text + "…")) > limit:
        text = text[: max(0, len(text) * limit // size - 1)]
    return text + "…"
