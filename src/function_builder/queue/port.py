"""The interface between the server and the queue.

Each call has a tenant, and only finds that tenant's builds. For a build that does not exist, and
for another tenant's build, the result is the same: None.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from function_builder.contract.builds import BuildInfo, BuildState
from function_builder.contract.reader import Reader
from function_builder.contract.usage import Usage, UsageRows

ANSWER_SECONDS: Final = 1.0
"""How long a build waits for NATS before this builder counts alone."""

EVENT_OF_END: Final = "build.finished"
"""The event whose callback a build's document shows."""


class QueueUnavailable(Exception):
    """The queue did not do what was asked."""


class Callback(NamedTuple):
    """Where a build's events are sent.

    Attributes:
        url: the result of `callback_url.check_url`.
        events: the types that were requested.
    """

    url: str
    events: Sequence[str]


class CallbackOutcome(StrEnum):
    """The result of an attempt to send a callback; a label of the metrics."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    GONE = "gone"
    EXPIRED = "expired"
    FORBIDDEN = "forbidden"


class Idempotency(NamedTuple):
    """What identifies a repeated request.

    Attributes:
        key: any text, so a storage key must be made from its hash.
        fingerprint: the SHA-256 of the body; empty without a body.
    """

    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A checked request, which is built later.

    Attributes:
        id: of the build, as `contract.builds.new_id` makes it.
        tenant: whose it is.
        created: when the request was accepted, in seconds since the epoch.
        image: the reference to push; empty if it is not pushed.
        repository: the image without its tag.
        requester: who asked.
        trust_domain: derived from the secret that signed the body (`server.keys.trust_domain`).
            It determines the shared caches, and whether that secret is still valid.
        callback: where its events are sent; None: nowhere.
        idempotency: identifies a repetition of the request; None: each request is a new build.
        headers: the trace that the build belongs to, as W3C headers.
        queue_timeout: seconds for which it may wait for a slot; None: no limit. After that it
            fails with `Reason.BUSY`.
    """

    id: str
    tenant: str
    created: float
    image: str = ""
    repository: str = ""
    requester: str = ""
    trust_domain: str = ""
    callback: Callback | None = None
    idempotency: Idempotency | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    queue_timeout: float | None = None


class Page(NamedTuple):
    """Builds, the newest first.

    Attributes:
        builds: as they are now.
        cursor: where the next page starts, printable ASCII; empty at the end of the list.
    """

    builds: Sequence[BuildInfo]
    cursor: str


class LogBatch(NamedTuple):
    """Lines of a log.

    Attributes:
        first: the number of the first of them; the log's first line is 1.
        lines: without their newline, at most about 32 Ki characters in total; a `StepText` if the
            step is known. An empty batch is a heartbeat.
    """

    first: int
    lines: Sequence[str]


class UsageStore(Protocol):
    """Usage over all builders and over restarts."""

    async def prepare(self) -> None:
        """Make it ready; raises `QueueUnavailable`."""

    async def write(self, day: date, tenant: str, usage: Usage) -> None:
        """Write what this process has counted since its start; raises `QueueUnavailable`."""

    async def read(self, first: date, last: date, tenant: str) -> UsageRows:
        """The sums over all builders; raises `QueueUnavailable`."""


class Marks(Protocol):
    """A number for each tenant, which all builders change."""

    async def move(self, tenant: str, change: Callable[[float], float]) -> float:
        """Change a tenant's mark for all builders, and return it; a new mark is 0.

        Args:
            tenant: whose.
            change: returns the new mark. If it raises, the mark does not change. It is called again
                if another builder was faster.

        Raises:
            QueueUnavailable: it is not known whether the mark was changed.
        """


class Inflight(Protocol):
    """How many builds of a tenant each builder runs."""

    async def watch(self, changed: Callable[[str, int], None]) -> None:
        """Report each change from now on.

        Args:
            changed: is called with the tenant, and how many of its builds the other builders run.

        Raises:
            QueueUnavailable: nothing is reported.
        """

    async def claim(self, tenant: str, *, least: int, wanted: int, limit: int) -> int:
        """Set how many builds of a tenant this builder runs, and return it.

        The result is `wanted` if all builders together then run at most `limit` builds. Otherwise
        it is what the limit leaves for this builder.

        Args:
            tenant: whose.
            least: those that run here already; the result is at least this.
            wanted: those, and those that will start.
            limit: for all builders.

        Raises:
            QueueUnavailable: it is not known whether the part was set.
        """


class SignOuts(Protocol):
    """The sessions of browsers that have signed out, over all builders."""

    async def add(self, session: str) -> None:
        """End a session; raises `QueueUnavailable`."""

    async def contain(self, session: str) -> bool:
        """Whether a session was ended; raises `QueueUnavailable`."""


class Builds(Protocol):
    """The builds of all tenants, over all replicas.

    Each method may raise `Refusal`: 503 if the queue is unreachable; 507 if its disk is full. The
    request was not acknowledged then.
    """

    async def submit(self, submission: Submission, body: Reader) -> BuildInfo:
        """Store a body and queue its build.

        Returns when both are durable. With the idempotency key and fingerprint of an earlier
        submission, the result is the build of that submission, which has another id.

        Raises:
            Refusal: 422: another body was sent under this key; 429: the queue is full.
        """

    def record_start(self, tenant: str, info: BuildInfo) -> None:
        """Record the start of a synchronous build.

        Returns at once. The record is written in the background. If that fails, the only effect is
        that the list does not have the build.
        """

    def record_end(self, tenant: str, info: BuildInfo, log: Sequence[str]) -> None:
        """Record the end of a synchronous build, and its log, in the same way as `record_start`."""

    async def get(self, tenant: str, build_id: str) -> BuildInfo | None:
        """A build as it is now. `build_id` is any text."""

    async def list(
        self,
        tenant: str,
        *,
        states: Collection[BuildState] = (),
        repository: str = "",
        limit: int = 50,
        cursor: str = "",
    ) -> Page:
        """Builds, newest first; new builds do not change the following pages.

        Args:
            tenant: whose.
            states: only of these; none: of any.
            repository: only of this; empty: of any.
            limit: at most so many.
            cursor: of the page before.

        Raises:
            Refusal: 400: the cursor is malformed.
        """

    def follow(
        self, tenant: str, build_id: str, *, after: int = 0
    ) -> AsyncGenerator[LogBatch, None]:
        """Yield a log's lines after line `after`, until the build has ended and all are read.

        There is a batch at least every 10 seconds, which may be a heartbeat. A follower has one
        batch in memory, and a slow one does not delay others. Line numbers continue over attempts.
        It ends at once for a build that does not exist, or whose log was deleted.
        """

    async def cancel(self, tenant: str, build_id: str) -> BuildInfo | None:
        """Cancel a build that is queued, or that runs on any replica.

        The build is `cancelled` when this returns. A build that had ended before is unchanged.
        """

    async def retry(
        self,
        tenant: str,
        build_id: str,
        *,
        requester: str = "",
        idempotency: Idempotency | None = None,
    ) -> BuildInfo | None:
        """Queue a new build of a stored body; its `retry_of` names the old build.

        Raises:
            Refusal: 409: the build has not ended; 410: its body was deleted; 422: as for `submit`.
        """

    def unready_because(self) -> str:
        """Why no build can be queued now; empty if one can."""
