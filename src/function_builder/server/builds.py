"""The routes of builds that outlive their connection: list, read, follow, cancel, retry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from function_builder.contract.answer_signature import AnswerSignature
from function_builder.contract.builds import (
    CALL_ID_HEADER,
    MAX_LIMIT,
    RESPOND_ASYNC,
    BuildInfo,
    BuildState,
)
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.reads import build_token
from function_builder.contract.sse import EVENT_STREAM, LAST_EVENT_ID_HEADER
from function_builder.queue.port import Idempotency
from function_builder.server.answers import document
from function_builder.server.asking import read_key
from function_builder.server.auditing import decided
from function_builder.server.build_actions import (
    BuildActions,
    checked_id,
    read_line_number,
    read_number,
)
from function_builder.server.claims import current_secret
from function_builder.server.decisions import AuditEvent
from function_builder.server.following import NDJSON, STREAM_HEADERS, Follower
from function_builder.server.reading import Caller, identify
from function_builder.server.service import Service

BUILD_ID_HEADER: Final = "X-Build-Id"
"""The header of every answer of POST /build, to find the request in the builder's log."""

DEFAULT_LIMIT: Final = 50

_Handler = Callable[[Request], Awaitable[Response]]


def accepted(
    info: BuildInfo, service: Service, tenant: str, answer: AnswerSignature | None
) -> Response:
    """202: the build is queued, and a crash does not lose it."""
    content = info.to_document()
    if secret := current_secret(service.settings, service.tenants, tenant):
        content["token"] = build_token(secret, tenant, info.id)
    headers = {
        "Location": f"/builds/{info.id}",
        "Preference-Applied": RESPOND_ASYNC,
        BUILD_ID_HEADER: info.id,
        CALL_ID_HEADER: info.id,
    }
    return document(content, answer, 202, headers)


class BuildsRoutes:
    """The handlers of `/builds` and below.

    Args:
        service: what the endpoints share.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._actions = BuildActions(service)

    def routes(self) -> list[Route]:
        """One route for each path."""
        read = decided(self._service, AuditEvent.READ, self._read)
        cancel = decided(self._service, AuditEvent.CANCEL, self._cancel)

        async def read_or_cancel(request: Request) -> Response:
            return await (cancel if request.method == "DELETE" else read)(request)

        return [
            Route("/builds", decided(self._service, AuditEvent.LIST, self._list)),
            Route("/builds/{id}", read_or_cancel, methods=["GET", "DELETE"]),
            Route("/builds/{id}/log", decided(self._service, AuditEvent.LOG, self._log)),
            Route(
                "/builds/{id}/retry",
                decided(self._service, AuditEvent.RETRY, self._retry),
                methods=["POST"],
            ),
        ]

    async def _list(self, request: Request) -> Response:
        builds, query = self._actions.builds, request.query_params
        caller = await identify(request, self._service.settings, self._service.tenants)
        page = await builds.list(
            caller.tenant,
            states=_states(query.getlist("status")),
            repository=query.get("repository", ""),
            limit=read_number(
                "limit", query.get("limit", str(DEFAULT_LIMIT)), least=1, most=MAX_LIMIT
            ),
            cursor=query.get("cursor", ""),
        )
        content: dict[str, object] = {"builds": [info.to_document() for info in page.builds]}
        if page.cursor:
            content["cursor"] = page.cursor
        return document(content, caller.answer)

    async def _read(self, request: Request) -> Response:
        caller, build_id = await self._identify(request)
        info = await self._actions.find(caller.tenant, build_id)
        return document(info.to_document(), caller.answer)

    async def _log(self, request: Request) -> Response:
        caller, build_id = await self._identify(request)
        info = await self._actions.find(caller.tenant, build_id)
        after = request.headers.get(LAST_EVENT_ID_HEADER) or request.query_params.get("after", "0")
        return _LogResponse(self._service, request, caller, info, read_line_number(after))

    async def _cancel(self, request: Request) -> Response:
        caller, build_id = await self._identify(request)
        info = await self._actions.cancel(request, caller.tenant, build_id, by=caller.by)
        if info.state.ended and info.state is not BuildState.CANCELLED:
            raise Refusal(409, f"the build had already ended: its status is {info.state.value}")
        return document(info.to_document(), caller.answer)

    async def _retry(self, request: Request) -> Response:
        caller, build_id = await self._identify(request)
        if caller.has_token:
            raise Refusal(
                403, "a build's token only reads and cancels: sign the request to build again"
            )
        # If the same request arrives twice, such as from a proxy, there is one retry.
        key = read_key(request.headers) or (caller.proof and f"retry {caller.proof.hex()}")
        idempotency = Idempotency(key, build_id.encode()) if key else None
        info = await self._actions.retry(
            request, caller.tenant, build_id, by=caller.by, idempotency=idempotency
        )
        return accepted(info, self._service, caller.tenant, caller.answer)

    async def _identify(self, request: Request) -> tuple[Caller, str]:
        """The caller and the build of a request.

        Raises:
            Refusal: 401; 404, no build can have this id; 501.
        """
        _ = self._actions.builds
        build_id = request.path_params["id"]
        service = self._service
        caller = await identify(request, service.settings, service.tenants, build_id)
        return caller, checked_id(build_id)


class _LogResponse(Response):
    """A log that is sent as it grows."""

    def __init__(
        self, service: Service, request: Request, caller: Caller, info: BuildInfo, after: int
    ) -> None:
        self._as_events = EVENT_STREAM in request.headers.get("accept", "")
        media_type = EVENT_STREAM if self._as_events else NDJSON
        super().__init__(headers=STREAM_HEADERS, media_type=media_type)
        del self.headers["content-length"]
        self._follower_of = (service, request, caller, info, after)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole log; for HEAD, only its headers."""
        service, request, caller, info, after = self._follower_of
        if request.method == "HEAD":
            await super().__call__(scope, receive, send)
            return
        follower = Follower(
            service=service,
            request=request,
            send=send,
            tenant=caller.tenant,
            info=info,
            answer=caller.answer,
            after=after,
        )
        await (follower.send_events() if self._as_events else follower.send_lines())


def _states(values: list[str]) -> frozenset[BuildState]:
    words = [word.strip() for value in values for word in value.split(",") if word.strip()]
    for word in words:
        if word not in set(BuildState):
            raise Refusal(400, f"status: {shown(word)} is not one: use {', '.join(BuildState)}")
    return frozenset(map(BuildState, words))
