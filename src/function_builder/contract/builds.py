"""Builds that outlive their connection: what their clients see of them.

A build is a JSON document (`BuildInfo`), found under `/builds/{id}`. Its log is a list of lines,
numbered from 1. Times in documents are RFC 3339 in UTC; durations are seconds.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from function_builder.contract.result import BuildResult, BuildStatus, result_of

DEFAULT_TENANT: Final = "default"
"""The tenant of a builder that has no others."""

IDEMPOTENCY_HEADER: Final = "Idempotency-Key"
CALLBACK_HEADER: Final = "X-Callback-Url"
CALLBACK_EVENTS_HEADER: Final = "X-Callback-Events"
CALL_ID_HEADER: Final = "X-Call-Id"
RESPOND_ASYNC: Final = "respond-async"
"""The preference (RFC 7240) that asks for 202 instead of the end of the build."""

MAX_LIMIT: Final = 200
"""The most builds of one page of `GET /builds`."""

_ID: Final = re.compile(r"[0-9a-f]{24}")


class BuildState(StrEnum):
    """Where a build stands. Clients must accept words that they do not know."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the build stays as it is."""
        return self in _ENDS


_ENDS: Final = frozenset({BuildState.SUCCESS, BuildState.FAILED, BuildState.CANCELLED})


class CallbackState(StrEnum):
    """Where the callback of a build's end stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackInfo:
    """The progress of the callback of a build's end.

    Attributes:
        state: where it stands.
        attempts: how many there were.
        status: the receiver's last answer; 0 if it had none.
        error: why the last attempt had no answer, or why there is no other one; empty otherwise.
        next_attempt: when it is sent again, in seconds since the epoch; None: it is not planned.
    """

    state: CallbackState = CallbackState.PENDING
    attempts: int = 0
    status: int = 0
    error: str = ""
    next_attempt: float | None = None

    def to_document(self) -> dict[str, object]:
        """The JSON document, without what is empty."""
        fields: dict[str, object] = {
            "lastStatus": self.status,
            "lastError": self.error,
            "nextAttempt": None if self.next_attempt is None else rfc3339(self.next_attempt),
        }
        known = {name: value for name, value in fields.items() if value}
        return {"status": self.state.value, "attempts": self.attempts, **known}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInfo:
    """A build, without its log.

    Attributes:
        id: as `new_id` makes it.
        state: where it stands.
        created: when its request was accepted, in seconds since the epoch.
        image: the reference that was asked for; empty if it is not pushed.
        repository: the image without its tag.
        started: when it got a slot, of its last attempt, in seconds since the epoch.
        ended: when it ended, in seconds since the epoch.
        attempt: how often it was begun: 0 while it was never begun, 2 after one builder was lost.
        position: its place in its tenant's queue, from 1; None unless it is queued and known.
        asynchronous: whether it was answered with 202; otherwise its connection waited for it.
        requester: who asked: an address, or the id of a credential.
        phases: seconds of each phase that has ended, by the words of the builder's metrics.
        retry_of: the id of the build whose body it builds again; empty if it has one of its own.
        callback: the progress of the callback of its end; None: none was requested.
        result: its end, without the log; None until it has ended. Its status is `failed` for a
            cancelled build.
    """

    id: str
    state: BuildState
    created: float
    image: str = ""
    repository: str = ""
    started: float | None = None
    ended: float | None = None
    attempt: int = 0
    position: int | None = None
    asynchronous: bool = True
    requester: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    retry_of: str = ""
    callback: CallbackInfo | None = None
    result: BuildResult | None = None

    def end(self, state: BuildState, result: BuildResult, ended: float) -> BuildInfo:
        """This build at its end."""
        bare = dataclasses.replace(result, log=(), steps=(), image=self.image, build_id=self.id)
        return dataclasses.replace(self, state=state, result=bare, ended=ended, position=None)

    def to_document(self) -> dict[str, object]:
        """The JSON document, without what is empty: the keys of a result, and those of a build."""
        result = {} if self.result is None else self.result.to_document()
        fields: dict[str, object] = {
            "image": self.image,
            "repository": self.repository,
            "created": rfc3339(self.created),
            "started": None if self.started is None else rfc3339(self.started),
            "ended": None if self.ended is None else rfc3339(self.ended),
            "position": self.position,
            "requester": self.requester,
            "phases": {name: round(took, 3) for name, took in self.phases.items()},
            "retryOf": self.retry_of,
            "callback": None if self.callback is None else self.callback.to_document(),
        }
        return {
            "buildId": self.id,
            **{name: value for name, value in fields.items() if value not in (None, "", {})},
            "attempt": self.attempt,
            "asynchronous": self.asynchronous,
            **result,
            "status": self.state.value,
        }


def parse_build_info(data: bytes | str | Mapping[str, Any]) -> BuildInfo:
    """Read a build's document, or its JSON.

    Raises:
        ValueError: it is not one.
    """
    fields = data if isinstance(data, Mapping) else _object(data)
    state = BuildState(str(fields.get("status")))
    build_id, created = fields.get("buildId"), _moment(fields, "created")
    if not isinstance(build_id, str) or created is None:
        raise ValueError("not a build: it has no buildId or no time created")
    attempt, position, phases = map(fields.get, ("attempt", "position", "phases"))
    status = BuildStatus.SUCCESS if state is BuildState.SUCCESS else BuildStatus.FAILED
    return BuildInfo(
        id=build_id,
        state=state,
        created=created,
        image=_text(fields, "image"),
        repository=_text(fields, "repository"),
        started=_moment(fields, "started"),
        ended=_moment(fields, "ended"),
        attempt=attempt if isinstance(attempt, int) else 0,
        position=position if isinstance(position, int) else None,
        asynchronous=fields.get("asynchronous") is not False,
        requester=_text(fields, "requester"),
        phases=_numbers(phases),
        retry_of=_text(fields, "retryOf"),
        callback=_callback(fields.get("callback")),
        result=result_of({**fields, "status": status}) if state.ended else None,
    )


def new_id(now: float | None = None) -> str:
    """A build's id: 12 hex digits of the time in milliseconds, and 12 random ones.

    Ids sort by time. An id is not a secret: each read is signed, or has the build's token.
    """
    milliseconds = int((time.time() if now is None else now) * 1000)
    return f"{milliseconds & (1 << 48) - 1:012x}{secrets.token_hex(6)}"


def is_id(text: str) -> bool:
    """Whether a text can be a build's id. A storage key may be made of one."""
    return _ID.fullmatch(text) is not None


def rfc3339(seconds: float) -> str:
    """A time with milliseconds: `2026-11-28T18:40:00.123Z`."""
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch.

    Raises:
        ValueError: it is not a time with a zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the time has no zone")
    return moment.timestamp()


def _callback(fields: object) -> CallbackInfo | None:
    if not isinstance(fields, Mapping):
        return None
    attempts, status = map(fields.get, ("attempts", "lastStatus"))
    return CallbackInfo(
        state=CallbackState(str(fields.get("status"))),
        attempts=attempts if isinstance(attempts, int) else 0,
        status=status if isinstance(status, int) else 0,
        error=_text(fields, "lastError"),
        next_attempt=_moment(fields, "nextAttempt"),
    )


def _object(data: bytes | str) -> Mapping[str, Any]:
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError("not a build: nested too deeply") from error
    return document if isinstance(document, dict) else {}


def _text(fields: Mapping[str, Any], name: str) -> str:
    return str(fields.get(name) or "")


def _moment(fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    return parse_rfc3339(value) if isinstance(value, str) else None


def _numbers(value: object) -> Mapping[str, float]:
    items: Sequence[tuple[Any, Any]] = list(value.items()) if isinstance(value, Mapping) else []
    return {str(name): float(number) for name, number in items if isinstance(number, int | float)}
