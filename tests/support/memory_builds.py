"""The queue's port, in memory: for tests of what is in front of it.

`port_behavior.py` holds it, and the real one, to the same behavior.
"""

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field

from function_builder.contract.builds import BuildInfo, BuildState, new_id
from function_builder.contract.errors import Refusal
from function_builder.contract.findings import Reason
from function_builder.contract.reader import Reader
from function_builder.contract.result import BuildResult, BuildStatus
from function_builder.queue.port import Builds, Idempotency, LogBatch, Page, Submission

_BATCH_LINES = 100


@dataclass
class _Kept:
    tenant: str
    info: BuildInfo
    body: bytes | None = None
    log: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryBuilds(Builds):
    """Keeps builds; a test says how they go on.

    Attributes:
        submissions: all of them, in order.
        broken: raised by each call, as while the queue is away.
        heartbeat: seconds between two batches of a quiet log.
        followers: how many read logs now.
        max_queued: how many builds may be submitted; 0: no limit.
    """

    def __init__(self) -> None:
        self.submissions: list[Submission] = []
        self.broken: Refusal | None = None
        self.heartbeat = 10.0
        self.followers = 0
        self.max_queued = 0
        self._kept: dict[str, _Kept] = {}
        self._keys: dict[tuple[str, str], tuple[bytes, str]] = {}

    def start(self, build_id: str) -> None:
        kept = self._kept[build_id]
        kept.info = dataclasses.replace(
            kept.info, state=BuildState.RUNNING, started=time.time(), attempt=1, position=None
        )
        kept.wake()

    def write(self, build_id: str, lines: Sequence[str]) -> None:
        kept = self._kept[build_id]
        kept.log += lines
        kept.wake()

    def end(self, build_id: str, state: BuildState, **result: object) -> None:
        kept = self._kept[build_id]
        status = BuildStatus.SUCCESS if state is BuildState.SUCCESS else BuildStatus.FAILED
        whole = dataclasses.replace(BuildResult(status=status, duration=1.5), **result)  # type: ignore[arg-type]
        kept.info = kept.info.end(state, whole, time.time())
        kept.wake()

    async def submit(self, submission: Submission, body: Reader) -> BuildInfo:
        self._check()
        known = self._known(submission.tenant, submission.idempotency)
        if known is not None:
            return known
        if self.max_queued and len(self.submissions) >= self.max_queued:
            raise Refusal(429, "The queue is full: send the request again later.")
        self.submissions.append(submission)
        waiting = [each for each in self._kept.values() if each.info.state is BuildState.QUEUED]
        info = BuildInfo(
            id=submission.id,
            state=BuildState.QUEUED,
            created=submission.created,
            image=submission.image,
            repository=submission.repository,
            position=len(waiting) + 1,
            requester=submission.requester,
        )
        self._kept[info.id] = _Kept(submission.tenant, info, body.read(0, body.size))
        self._remember(submission.tenant, submission.idempotency, info.id)
        return info

    def record_start(self, tenant: str, info: BuildInfo) -> None:
        self._kept[info.id] = _Kept(tenant, info)

    def record_end(self, tenant: str, info: BuildInfo, log: Sequence[str]) -> None:
        kept = self._kept.setdefault(info.id, _Kept(tenant, info))
        kept.info, kept.log = info, list(log)
        kept.wake()

    async def get(self, tenant: str, build_id: str) -> BuildInfo | None:
        self._check()
        kept = self._find(tenant, build_id)
        return kept.info if kept else None

    async def list(
        self,
        tenant: str,
        *,
        states: Collection[BuildState] = (),
        repository: str = "",
        limit: int = 50,
        cursor: str = "",
    ) -> Page:
        self._check()
        if cursor and cursor not in self._kept:
            raise Refusal(400, "the cursor is not one of this list")
        found = [
            kept.info
            for build_id, kept in sorted(self._kept.items(), reverse=True)
            if kept.tenant == tenant
            and (not cursor or build_id < cursor)
            and (not states or kept.info.state in states)
            and (not repository or kept.info.repository == repository)
        ]
        more = found[limit - 1].id if len(found) > limit else ""
        return Page(found[:limit], more)

    async def follow(
        self, tenant: str, build_id: str, *, after: int = 0
    ) -> AsyncGenerator[LogBatch, None]:
        kept = self._find(tenant, build_id)
        self.followers += 1
        try:
            while kept is not None:
                self._check()
                if lines := kept.log[after : after + _BATCH_LINES]:
                    yield LogBatch(after + 1, lines)
                    after += len(lines)
                elif kept.info.state.ended:
                    return
                else:
                    try:
                        async with asyncio.timeout(self.heartbeat):
                            await kept.changed.wait()
                    except TimeoutError:
                        yield LogBatch(after + 1, ())
        finally:
            self.followers -= 1

    async def cancel(self, tenant: str, build_id: str) -> BuildInfo | None:
        self._check()
        kept = self._find(tenant, build_id)
        if kept is None:
            return None
        if not kept.info.state.ended:
            error = {"error": "the build was cancelled", "reason": Reason.CANCELLED.value}
            self.end(build_id, BuildState.CANCELLED, **error)
        return kept.info

    async def retry(
        self,
        tenant: str,
        build_id: str,
        *,
        requester: str = "",
        idempotency: Idempotency | None = None,
    ) -> BuildInfo | None:
        self._check()
        kept = self._find(tenant, build_id)
        if kept is None:
            return None
        if known := self._known(tenant, idempotency):
            return known
        if not kept.info.state.ended:
            raise Refusal(409, "the build has not ended")
        if kept.body is None:
            raise Refusal(410, "the build's body is no longer stored: send it again")
        old = kept.info
        info = BuildInfo(
            id=new_id(),
            state=BuildState.QUEUED,
            created=time.time(),
            image=old.image,
            repository=old.repository,
            requester=requester,
            retry_of=build_id,
        )
        self._kept[info.id] = _Kept(tenant, info, kept.body)
        self._remember(tenant, idempotency, info.id)
        return info

    def unready_because(self) -> str:
        return self.broken.reason if self.broken else ""

    def _check(self) -> None:
        if self.broken:
            raise self.broken

    def _find(self, tenant: str, build_id: str) -> _Kept | None:
        kept = self._kept.get(build_id)
        return kept if kept and kept.tenant == tenant else None

    def _known(self, tenant: str, key: Idempotency | None) -> BuildInfo | None:
        if key is None or (tenant, key.key) not in self._keys:
            return None
        fingerprint, build_id = self._keys[tenant, key.key]
        if fingerprint != key.fingerprint:
            raise Refusal(422, "another body was sent under this Idempotency-Key")
        return self._kept[build_id].info

    def _remember(self, tenant: str, key: Idempotency | None, build_id: str) -> None:
        if key is not None:
            self._keys[tenant, key.key] = key.fingerprint, build_id


class EndedBuilds(MemoryBuilds):
    """Each submitted build has ended with a short log; one in two has failed."""

    async def submit(self, submission: Submission, body: Reader) -> BuildInfo:
        info = await super().submit(submission, body)
        if not info.state.ended and self._kept[info.id].info.state is BuildState.QUEUED:
            self.start(info.id)
            self.write(info.id, ["one", "two"])
            failed = len(self.submissions) % 2
            error = "failed to solve: no" if failed else ""
            self.end(info.id, BuildState.FAILED if failed else BuildState.SUCCESS, error=error)
        return info
