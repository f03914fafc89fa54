"""One build: what was asked for, how it stands, what it said."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from function_builder.builds.log import BuildLog
from function_builder.contract.archive import ContextEntry
from function_builder.contract.config import BuildConfig
from function_builder.contract.result import BuildResult, BuildStatus
from function_builder.contract.tar import Reader


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BuildRequest:
    """A request that has been checked: everything that a build needs.

    Attributes:
        config: what to build.
        reader: the request's tar.
        context: the build context's entries in it.
        digests: the entries' content, as `content_digests` gives it.
        frontend: the attributes that fix the Dockerfile's frontend.
        secrets: build secrets, opened.
        trust_domain: requests of one payload secret share caches, and with no other.
    """

    config: BuildConfig
    reader: Reader
    context: Sequence[ContextEntry]
    digests: Sequence[bytes]
    frontend: Mapping[str, str]
    secrets: Mapping[str, bytes]
    trust_domain: str


@dataclass(slots=True, eq=False, repr=False)
class Build:
    """A build under way, or at its end.

    Attributes:
        request: what to build.
        accepted: when the request came, in the monotonic clock's seconds.
        id: its name in logs and in the reply.
        log: its lines.
        started: set when BuildKit has taken it up, or when it has ended without.
        unreachable: it ended before it began: BuildKit did not answer.
        result: its end, without the log; None while it runs.
    """

    request: BuildRequest
    accepted: float = field(default_factory=time.monotonic)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    log: BuildLog = field(default_factory=BuildLog)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    unreachable: bool = False
    result: BuildResult | None = None
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def end(self) -> BuildResult:
        """Wait for the result."""
        await self._ended.wait()
        assert self.result is not None
        return self.result

    @property
    def elapsed(self) -> float:
        """Seconds since the request was accepted."""
        return time.monotonic() - self.accepted

    def succeed(self, digest: str) -> None:
        """The image is built, and pushed if that was asked for."""
        self._end(BuildStatus.SUCCESS, digest=digest)

    def fail(self, error: str) -> None:
        """It came to nothing; `error` is for the client."""
        self._end(BuildStatus.FAILED, error=error)

    def _end(self, status: BuildStatus, *, error: str = "", digest: str = "") -> None:
        self.result = BuildResult(
            status=status,
            image=self.request.config.image,
            error=error,
            duration=self.elapsed,
            digest=digest,
            build_id=self.id,
        )
        self.log.close()
        self.started.set()
        self._ended.set()
