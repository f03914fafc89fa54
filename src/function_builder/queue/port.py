"""What the server knows of the queue.

Each call takes a tenant, and sees that tenant's builds alone. An absent build and another tenant's
are the same: None.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from function_builder.contract.builds import BuildInfo, BuildState
from function_builder.contract.reader import Reader

EVENT_OF_END: Final = "build.finished"
"""The event whose callback a build's document shows."""


class Callback(NamedTuple):
    """Where a build's events are sent.

    Attributes:
        url: checked, as `callback_url.check_url` gave it.
        events: the types that were asked for.
    """

    url: str
    events: Sequence[str]


class CallbackOutcome(StrEnum):
    """How an attempt to send a callback ended, a label of the metrics."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    GONE = "gone"
    EXPIRED = "expired"
    FORBIDDEN = "forbidden"


class Idempotency(NamedTuple):
    """What makes two requests one.

    Attributes:
        key: any text: a storage key must be made of its hash.
        fingerprint: the SHA-256 of the body; empty where there is none.
    """

    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request that is checked and is to be built later.

    Attributes:
        id: of the build, as `contract.builds.new_id` makes it.
        tenant: whose it is.
        created: when the request was accepted, in seconds since the epoch.
        image: the reference to push; empty if it is not pushed.
        repository: the image without its tag.
        requester: who asked.
        trust_domain: what the body's secret stands for (`server.keys.trust_domain`). It decides
            which caches the build shares, and whether a payload secret still vouches for it.
        callback: where its events go, if anywhere.
        idempotency: what makes a repetition of the request the same build.
        headers: the trace that the build belongs to, as W3C headers.
        queue_timeout: how many seconds it may wait for a slot; None: as long as it takes. After
            that it ends as failed with `Reason.BUSY`.
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
        cursor: where the next page begins, printable ASCII; empty at the end of the list.
    """

    builds: Sequence[BuildInfo]
    cursor: str


class LogBatch(NamedTuple):
    """Lines of a log.

    Attributes:
        first: the number of the first of them; the log's first line is 1.
        lines: without their newline, some 32 Ki characters at most; a `StepText` where the step is
            known. None at all is a heartbeat.
    """

    first: int
    lines: Sequence[str]


class Builds(Protocol):
    """The builds of all tenants, over all replicas.

    Each method may raise `Refusal`: 503 while the queue cannot be reached; 507 while its disk is
    full. Nothing has been acknowledged then.
    """

    async def submit(self, submission: Submission, body: Reader) -> BuildInfo:
        """Keep a body and queue its build.

        Returns when both are durable. The same idempotency key and fingerprint as of an earlier
        submission give that one's build, as it is now, whose id differs then.

        Raises:
            Refusal: 422: another body was sent under this key; 429: the queue is full.
        """

    def begin(self, tenant: str, info: BuildInfo) -> None:
        """Record a synchronous build that begins.

        Returns at once. It is written in the background; where that fails, the build is only
        absent from the list.
        """

    def finish(self, tenant: str, info: BuildInfo, log: Sequence[str]) -> None:
        """Record a synchronous build's end, and its log; as `begin`."""

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
        """Builds, newest first; pages are stable while builds come.

        Args:
            tenant: whose.
            states: only of these; none: of any.
            repository: only of this; empty: of any.
            limit: at most so many.
            cursor: of the page before.

        Raises:
            Refusal: 400: the cursor is not one.
        """

    def follow(
        self, tenant: str, build_id: str, *, after: int = 0
    ) -> AsyncGenerator[LogBatch, None]:
        """Yield a log's lines behind number `after` until the build has ended and all are read.

        At least every 10 seconds there is a batch, if only a heartbeat. One follower holds one
        batch in memory; a slow one delays no other. The numbers go on over attempts. Ends at once
        for a build that is absent, or whose log is kept no longer.
        """

    async def cancel(self, tenant: str, build_id: str) -> BuildInfo | None:
        """End a build that is queued or running, on whichever replica.

        The build is `cancelled` when this returns, or as it was if it had ended already.
        """

    async def retry(
        self,
        tenant: str,
        build_id: str,
        *,
        requester: str = "",
        idempotency: Idempotency | None = None,
    ) -> BuildInfo | None:
        """Queue a new build of a kept body; its `retry_of` names the old one.

        Raises:
            Refusal: 409: the build has not ended; 410: its body is kept no longer; 422 as `submit`.
        """

    def unready_because(self) -> str:
        """Why no build can be queued now; empty if one can."""
