"""The record of one build and its changes. This module does no I/O.

Each change is one compare-and-set of the whole record. So of two builders that read the same
record, only one can change it.

::

    queued   -- start -->      running
    queued   -- fail -->       failed, cancelled
    running  -- end, fail -->  success, failed, cancelled
    running  -- requeue, lose -->  queued

A running build becomes `cancelled` at once, and its builder stores the log afterwards.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from function_builder.contract.builds import BuildInfo, BuildState, CallbackInfo, parse_build_info
from function_builder.contract.findings import Reason
from function_builder.contract.result import BuildResult, BuildStatus
from function_builder.contract.text import dump_json
from function_builder.queue.port import EVENT_OF_END, Callback, Submission

MAX_LOSSES: Final = 3
"""After this number of lost builders or BuildKits, a build fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A build, as the queue stores it.

    Attributes:
        info: the part that its client sees.
        tenant: whose it is.
        trust_domain: derived from the secret that signed the body.
        callback: where its events are sent; None: nowhere.
        headers: the trace that it belongs to.
        deadline: the latest time at which it may start, in seconds since the epoch; None: no limit.
        job: the number of its message in the stream of jobs; 0: none, or unknown.
        owner: the builder that runs it, or that ran it last.
        losses: how many builders or BuildKits were lost while they ran it.
        lines: how many lines the log in the store has; None: it is not stored yet.
    """

    info: BuildInfo
    tenant: str
    trust_domain: str = ""
    callback: Callback | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    deadline: float | None = None
    job: int = 0
    owner: str = ""
    losses: int = 0
    lines: int | None = None

    @classmethod
    def of(cls, submission: Submission, retry_of: str = "") -> Record:
        """The record of a build that is queued."""
        timeout = submission.queue_timeout
        callback = submission.callback
        told = callback is not None and EVENT_OF_END in callback.events
        return cls(
            info=BuildInfo(
                id=submission.id,
                state=BuildState.QUEUED,
                created=submission.created,
                image=submission.image,
                repository=submission.repository,
                requester=submission.requester,
                retry_of=retry_of,
                callback=CallbackInfo() if told else None,
            ),
            tenant=submission.tenant,
            trust_domain=submission.trust_domain,
            callback=callback,
            headers=submission.headers,
            deadline=None if timeout is None else submission.created + timeout,
        )

    def start(self, owner: str, now: float) -> Record:
        """A builder starts an attempt."""
        info = dataclasses.replace(
            self.info,
            state=BuildState.RUNNING,
            started=now,
            attempt=self.info.attempt + 1,
            position=None,
        )
        return dataclasses.replace(self, info=info, owner=owner)

    def requeue(self) -> Record:
        """Its builder drains, and another builder may start it."""
        info = dataclasses.replace(self.info, state=BuildState.QUEUED)
        return dataclasses.replace(self, info=info, owner="")

    def lose(self) -> Record:
        """Its builder, or its BuildKit, was lost while it ran."""
        return dataclasses.replace(self.requeue(), losses=self.losses + 1)

    def end(self, state: BuildState, result: BuildResult, now: float, lines: int | None) -> Record:
        """It has ended."""
        return dataclasses.replace(self, info=self.info.end(state, result, now), lines=lines)

    def fail(self, error: str, reason: Reason, now: float) -> Record:
        """It has failed without a result from BuildKit."""
        result = BuildResult(
            status=BuildStatus.FAILED,
            error=error,
            reason=reason.value,
            retryable=True,
            duration=max(now - self.info.created, 0.0),
        )
        state = BuildState.CANCELLED if reason is Reason.CANCELLED else BuildState.FAILED
        # A build that never started has no log to store.
        return self.end(state, result, now, None if self.info.attempt else 0)

    def expired(self, now: float) -> bool:
        """Whether it has waited longer than its client allows."""
        waits = self.info.state is BuildState.QUEUED and not self.info.attempt
        return waits and self.deadline is not None and now > self.deadline

    def to_value(self) -> bytes:
        """The form in which it is stored."""
        fields = {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if getattr(self, each.name) != each.default
        }
        return dump_json(fields | {"info": self.info.to_document()})

    @classmethod
    def parse(cls, data: bytes) -> Record:
        """Read the output of `to_value`.

        Raises:
            ValueError: it has another form.
        """
        try:
            fields: dict[str, Any] = json.loads(data)
            fields["info"] = parse_build_info(fields["info"])
            if (callback := fields.get("callback")) is not None:
                fields["callback"] = Callback(*callback)
            return cls(**fields)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a build's record: {error}") from error


class Step(Enum):
    """What a builder does with a job that it has received."""

    RUN = "run"
    EXPIRE = "expire"
    """The build waited too long."""
    GIVE_UP = "give up"
    """Its builder or BuildKit was lost too often."""
    SETTLE = "settle"
    """It has ended, but its callback may not be stored yet."""


def next_step(record: Record, owner: str, now: float) -> tuple[Step, Record]:
    """Decide about a job that this builder received and does not run.

    If the record says `running`, the owner did not end its attempt, because JetStream redelivers a
    job only if its builder was silent for `ack_wait`. If this builder is the owner, it gave up the
    attempt, because JetStream did not acknowledge the record.
    """
    if record.info.state.ended:
        return Step.SETTLE, record
    if record.info.state is BuildState.RUNNING:
        record = record.requeue() if record.owner == owner else record.lose()
    if record.losses >= MAX_LOSSES:
        error = f"the builder was lost {record.losses} times while it ran this build"
        return Step.GIVE_UP, record.fail(error, Reason.SERVICE, now)
    if record.expired(now):
        error = "no build slot was free within the time that the request allows: send it again"
        return Step.EXPIRE, record.fail(error, Reason.BUSY, now)
    return Step.RUN, record
