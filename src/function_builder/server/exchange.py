"""One build request, from its headers to the end of its answer."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from types import TracebackType
from typing import Final, Self

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Send
from structlog.contextvars import bind_contextvars

from function_builder.builds.build import Build, BuildRequest
from function_builder.builds.phases import BuildPhase, Measures
from function_builder.contract.builds import BuildInfo
from function_builder.contract.errors import Refusal
from function_builder.contract.manifest import MANIFEST_HEADER, MissingContent
from function_builder.contract.reader import Reader
from function_builder.policy.checks import checked
from function_builder.queue.port import Builds, Idempotency, Submission
from function_builder.server import admission, keys
from function_builder.server.admission import Proof
from function_builder.server.answering import answer
from function_builder.server.asking import Asked
from function_builder.server.auditing import note_decision
from function_builder.server.builds import BUILD_ID_HEADER, accepted
from function_builder.server.claims import Claim, refuse_callbacks
from function_builder.server.decisions import AuditEvent
from function_builder.server.following import Follower
from function_builder.server.metrics import GONE
from function_builder.server.outcomes import describe, note_end, note_refusal
from function_builder.server.peers import until_gone
from function_builder.server.places import NoSlot, Place
from function_builder.server.problems import refused_build
from function_builder.server.reading import Caller
from function_builder.server.service import Service
from function_builder.server.spool import MEMORY_BYTES, Spool
from function_builder.server.tracing import Trace

LARGE_BYTES: Final = 256 * 1024
"""Larger bodies are checked only a few at a time, because each may take seconds."""

_log = structlog.get_logger(__name__)


class Exchange:
    """One build request; it owns the request's body, slot, log line and metrics.

    ::

        async with Exchange(…) as exchange:
            build = await exchange.admit()
            await exchange.run(build)

    The body and the slot are released when the build ends, or before the last byte of the answer if
    that is sooner. So a client that reads slowly does not occupy a slot. A client may send its next
    request as soon as it has read the answer, even if there is only one slot.
    A `Refusal` in the block is the answer.

    Args:
        service: the state of the builder.
        request: its headers have arrived, its body has not.
        send: the ASGI channel of the answer.
        trace: receives the outcome.
        measures: receives the end of each phase.
        build_id: the build's id, in the answer and in the log.
        client: the client's address.
    """

    def __init__(
        self,
        service: Service,
        request: Request,
        send: Send,
        *,
        trace: Trace,
        measures: Measures,
        build_id: str,
        client: str,
    ) -> None:
        self.accepted = time.monotonic()
        self.build_id = build_id
        self.request = request
        self.spool = Spool(service.space)
        self._service = service
        self._send = send
        self._client = client
        self._trace = trace
        self._measures = measures
        self._held = ExitStack()
        self._held.callback(self.spool.close)
        self._place: Place | None = None
        self._proven: Proof | None = None
        self._caller: Caller | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        try:
            if isinstance(error, ClientDisconnect):
                self._note_refusal(Refusal(GONE, ""))
                return True
            if isinstance(error, Refusal):
                self._note_refusal(error)
                request = self.request
                await refused_build(error)(request.scope, request.receive, self.send)
                return True
            return False
        finally:
            self._held.close()

    async def send(self, message: Message) -> None:
        """Send a piece of the answer, with the build's id on its headers."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers[BUILD_ID_HEADER] = self.build_id
            headers[MANIFEST_HEADER] = "1"
        elif not message.get("more_body", False):
            self._held.close()
        await self._send(message)

    async def admit(self) -> Build:
        """Receive, verify and check the body, and get a slot or a place in the line.

        Raises:
            Refusal: the request is refused, by its headers or its body, or the line is full.
            ClientDisconnect: the client disconnected.
        """
        service = self._service
        admission.refuse_by_headers(self.request, service)
        # With tenants, the tenant is only known after the proof.
        if service.tenants is None and service.slots.full:
            raise NoSlot(service.slots.limit)
        claim = await self._prove()
        self._place = self._held.enter_context(service.slots.place(claim.tenant))
        request = await self._check(claim)
        # A request that is refused for its tenant's `max_inflight` has not used its hour.
        await self._place.claimed()
        await service.quotas.count(claim.tenant)
        headers = self._trace.headers
        return Build(request, self.accepted, self.build_id, headers, self._measures)

    async def run(self, build: Build) -> None:
        """Run an admitted build, and answer."""
        service = self._service
        self._note_decision(image=build.request.config.image)
        task = asyncio.create_task(self._run(build), name=f"build {build.id}")
        gone = asyncio.create_task(until_gone(self.request))
        if service.builds is not None:
            service.builds.record_start(self._tenant, describe(build, self._client))
        try:
            # Let the task start, so that it ends its build even if it is cancelled.
            await asyncio.sleep(0)
            gone.add_done_callback(_cancel(task, "its client went away"))
            with service.unread.until_read(build.log):
                await answer(build, self.request, self.send, self._proof.answer)
        finally:
            gone.cancel()
            # The build still runs only if the answer failed, so its client would get no result.
            task.cancel("it could not be answered")
            await asyncio.wait([task, gone])

    async def submit(self, builds: Builds, asked: Asked) -> BuildInfo:
        """Receive, verify and check the body, and queue its build.

        Raises:
            Refusal: as `admit`, and as `Builds.submit`.
            ClientDisconnect: the client disconnected.
        """
        service = self._service
        admission.refuse_by_headers(self.request, service)
        claim = await self._prove()
        if asked.callback is not None:
            refuse_callbacks(claim.tenant, service.tenants)
        config = (await self._check(claim, stored=True)).config
        key = None
        if asked.key:
            key = Idempotency(asked.key, await asyncio.to_thread(_sha256, self.spool))
        submission = Submission(
            id=self.build_id,
            tenant=claim.tenant,
            created=self._measures.accepted / 1e9,
            image=config.image,
            repository=config.repository,
            requester=self._client,
            trust_domain=claim.domains[0],
            callback=asked.callback,
            idempotency=key,
            headers=self._trace.headers,
            queue_timeout=config.queue_timeout,
        )
        async with service.quotas.counted(claim.tenant):
            info = await builds.submit(submission, self.spool)
        if service.replays is not None and self._proof.timestamp is not None:
            # Not earlier, because a client may repeat a request that could not be queued.
            service.replays.remember(self._proof.timestamp)
        self.build_id = info.id
        self._trace.outcome = "queued"
        self._note_decision(image=config.image)
        _log.info("build queued", queued=info.id, image=config.image, client=self._client)
        return info

    async def answer_queued(self, info: BuildInfo, asked: Asked) -> None:
        """Answer a request whose build is queued: at once, or while the build runs."""
        self._held.close()
        request = self.request
        if asked.asynchronous:
            response = accepted(info, self._service, self._tenant, self._proof.answer)
            await response(request.scope, request.receive, self.send)
        else:
            follower = Follower(
                service=self._service,
                request=request,
                send=self.send,
                tenant=self._tenant,
                info=info,
                answer=self._proof.answer,
            )
            await follower.answer_build()

    async def _run(self, build: Build) -> None:
        assert self._place is not None
        try:
            await self._service.run(build, self._place, self._proof.timestamp)
        except Exception as fault:  # noqa: BLE001 (the build has its end, which says so)
            _log.error("a build crashed", exc_info=fault)
        finally:
            self._held.close()
            self._note_end(build)

    async def _prove(self) -> Claim:
        """Receive the body, and verify its tenant."""
        service = self._service
        proof = await admission.prove(
            self.request,
            service,
            self.spool,
            build_id=self.build_id,
            held=self._held,
            measures=self._measures,
        )
        self._proven = proof
        tenant = proof.claim.tenant
        self._caller = Caller(tenant, credential=proof.credential)
        if service.usage is not None:
            service.usage.count_received(tenant, self.spool.size)
        if service.tenants is not None:
            bind_contextvars(tenant=tenant)
        return proof.claim

    async def _check(self, claim: Claim, *, stored: bool = False) -> BuildRequest:
        settings, domain = claim.settings, claim.domains[0]
        key = keys.unsealing_key(settings)
        # A small body is checked in a thread too, because a megabyte of YAML takes seconds.
        async with self._service.large_checks if self.spool.size > LARGE_BYTES else nullcontext():
            request = await asyncio.to_thread(
                checked, self.spool, settings, key, domain, claim.tenant
            )
        self._measures.end(BuildPhase.CHECK)
        if request.partial:
            if stored:
                # BuildKit may lose the content before the queued build starts.
                raise MissingContent(request.absent_rows())
            await self._service.builder.refuse_missing(request)
        return request

    def _note_end(self, build: Build) -> None:
        builds = self._service.builds
        if builds is not None:
            builds.record_end(self._tenant, describe(build, self._client), build.log.lines)
        if build.refusal is not None:
            self._note_refusal(build.refusal)
        else:
            self._trace.outcome = note_end(self._service, build)
        build.release()
        self._service.unread.add(build.log)

    def _note_refusal(self, refusal: Refusal) -> None:
        self._trace.outcome = note_refusal(self._service.metrics, refusal, self._client)
        self._note_decision(refusal=refusal)
        usage, caller = self._service.usage, self._caller
        if usage is not None and caller is not None:
            usage.count_limited(caller.tenant, refusal)

    def _note_decision(self, *, image: str = "", refusal: Refusal | None = None) -> None:
        note_decision(
            self._service,
            self.request,
            AuditEvent.BUILD,
            self._caller,
            build=self.build_id,
            image=image,
            refusal=refusal,
        )

    @property
    def _proof(self) -> Proof:
        assert self._proven is not None
        return self._proven

    @property
    def _tenant(self) -> str:
        return self._proof.claim.tenant


def _sha256(reader: Reader) -> bytes:
    digest = hashlib.sha256()
    for offset in range(0, reader.size, MEMORY_BYTES):
        digest.update(reader.read(offset, MEMORY_BYTES))
    return digest.digest()


def _cancel(task: asyncio.Task[None], reason: str) -> Callable[[asyncio.Task[None]], None]:
    def cancel(gone: asyncio.Task[None]) -> None:
        if not gone.cancelled():
            task.cancel(reason)

    return cancel
