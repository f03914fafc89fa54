"""The routes below `/web`: builds, one build, its log, and what a form may change.

The pages show the same builds as the API, because both read `queue.port.Builds`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from function_builder.contract.builds import BuildInfo, BuildState
from function_builder.contract.errors import Refusal
from function_builder.contract.tenancy import Scope
from function_builder.server.auditing import note_decision
from function_builder.server.build_actions import BuildActions, read_line_number
from function_builder.server.decisions import AuditEvent
from function_builder.server.following import Follower
from function_builder.server.reading import Caller
from function_builder.server.service import Service
from function_builder.server.web import session
from function_builder.server.web.answers import HEADERS, frame, html
from function_builder.server.web.operating import Operating
from function_builder.server.web.sign_in import SignIn
from function_builder.server.web.views import Pages

PAGE_BUILDS: Final = 50
"""The builds of one page of the list."""

_STATIC: Final = {
    "style.css": "text/css",
    "list.js": "text/javascript",
    "build.js": "text/javascript",
    "log.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

_Handler = Callable[[Request, session.Visitor], Awaitable[Response]]
"""Answers a request about the builds of a visitor's tenant."""


def web_routes(service: Service) -> list[Route]:
    """The routes of the web pages."""
    web = _Web(service)
    operating = web.operating
    return [
        Route("/", web.home),
        Route("/web", web.home),
        *web.sign_in.routes(),
        Route("/web/sign-out", web.page(web.sign_out), methods=["POST"]),
        Route("/web/static/{name}", web.static),
        # Browsers ask for it beside a log that is text.
        Route("/favicon.ico", web.icon),
        Route("/web/builds", web.page(web.list, AuditEvent.LIST)),
        Route("/web/builds/{id}", web.page(web.build, AuditEvent.READ)),
        Route("/web/builds/{id}/log", web.page(web.log, AuditEvent.LOG)),
        Route("/web/builds/{id}/log.txt", web.page(web.text, AuditEvent.LOG)),
        Route("/web/builds/{id}/cancel", web.page(web.cancel, AuditEvent.CANCEL), methods=["POST"]),
        Route("/web/builds/{id}/retry", web.page(web.retry, AuditEvent.RETRY), methods=["POST"]),
        Route("/web/usage", web.page(operating.usage, AuditEvent.USAGE)),
        Route("/web/buildkits", web.page(operating.buildkits, AuditEvent.BUILDKITS)),
        Route("/web/buildkits/prune", web.page(operating.ask, AuditEvent.BUILDKITS)),
        Route(
            "/web/buildkits/prune", web.page(operating.prune, AuditEvent.PRUNE), methods=["POST"]
        ),
        Route("/web/{path:path}", web.absent),
    ]


class _Web:
    """The handlers.

    Args:
        service: what the endpoints share.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._actions = BuildActions(service)
        self._pages = Pages(signed=not service.settings.disable_hmac)
        self.sign_in = SignIn(service, self._pages)
        self.operating = Operating(service, self._pages)
        self._streams = session.Streams(service)
        folder = resources.files(__package__) / "static"
        self._files = {name: (folder / name).read_bytes() for name in _STATIC}

    def page(
        self, handler: _Handler, event: AuditEvent | None = None
    ) -> Callable[[Request], Awaitable[Response]]:
        """Wrap a handler: the browser must be signed in, and refusals are pages.

        Args:
            handler: makes the page.
            event: its name in the audit log; None: it is not logged there.
        """

        async def answer(request: Request) -> Response:
            try:
                visitor = await session.require(request, self._service)
                request.state.caller = Caller(
                    visitor.tenant,
                    by="web",
                    credential=visitor.credential,
                    is_operator=visitor.is_operator,
                )
                request.state.links = self._links(visitor)
                if event is not None:
                    visitor.allow(Scope.READ if request.method in ("GET", "HEAD") else Scope.BUILD)
                response = await handler(request, visitor)
                self._decide(request, event)
            except session.SignedOut:
                return self.sign_in.page(request, "", HTTPStatus.UNAUTHORIZED)
            except Refusal as refusal:
                self._decide(request, event, refusal)
                title = HTTPStatus(refusal.status).phrase
                page = self._pages.error(frame(request), title=title, text=refusal.reason)
                return html(page, refusal.status)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer

    def _links(self, visitor: session.Visitor) -> dict[str, str]:
        links = {"builds": "Builds"}
        if self._service.usage is not None:
            links["usage"] = "Usage"
        if visitor.is_operator:
            links["buildkits"] = "BuildKits"
        return links

    def _decide(
        self, request: Request, event: AuditEvent | None, refusal: Refusal | None = None
    ) -> None:
        if event is not None:
            caller = getattr(request.state, "caller", None)
            build_id = request.path_params.get("id", "")
            note_decision(self._service, request, event, caller, build=build_id, refusal=refusal)

    async def home(self, _: Request) -> Response:
        """The list is the first page."""
        return RedirectResponse("web/builds", HTTPStatus.SEE_OTHER)

    async def sign_out(self, request: Request, _visitor: session.Visitor) -> Response:
        """End the session, and close the streams that it opened."""
        response = RedirectResponse("sign-in", HTTPStatus.SEE_OTHER)
        await session.sign_out(response, request, self._service)
        self._streams.end(request)
        return response

    async def static(self, request: Request) -> Response:
        """A static file, which contains no data of builds."""
        name = request.path_params["name"]
        return self._file(name) if name in self._files else await self.absent(request)

    async def absent(self, request: Request) -> Response:
        """There is no such page, whether the browser is signed in or not."""
        text = "There is no such page."
        return html(self._pages.error(frame(request), title="Not Found", text=text), 404)

    async def icon(self, _: Request) -> Response:
        """The icon of all pages."""
        return self._file("icon.svg")

    def _file(self, name: str) -> Response:
        headers = HEADERS | {"Cache-Control": "no-cache"}
        return Response(self._files[name], 200, headers, _STATIC[name])

    async def list(self, request: Request, visitor: session.Visitor) -> Response:
        """One page of builds, the newest first."""
        query = request.query_params
        status, repository = query.get("status", ""), query.get("repository", "").strip()
        if status and status not in set(BuildState):
            raise Refusal(400, f"status must be one of {', '.join(BuildState)}")
        builds = self._actions.builds
        found = await builds.list(
            visitor.tenant,
            states=frozenset({BuildState(status)}) if status else frozenset(),
            repository=repository,
            limit=PAGE_BUILDS,
            cursor=query.get("cursor", ""),
        )
        page = self._pages.list(
            frame(request),
            builds=found.builds,
            cursor=found.cursor,
            status=status,
            repository=repository,
            first=not query.get("cursor"),
            unready=builds.unready_because(),
        )
        return html(page)

    async def build(self, request: Request, visitor: session.Visitor) -> Response:
        """One build."""
        info = await self._actions.find(visitor.tenant, request.path_params["id"])
        may_build = Scope.BUILD in visitor.scopes
        return html(self._pages.build(frame(request), info, may_build=may_build))

    async def log(self, request: Request, visitor: session.Visitor) -> Response:
        """The log as NDJSON, for the page's script; it follows the build to its end."""
        info = await self._actions.find(visitor.tenant, request.path_params["id"])
        after = read_line_number(request.query_params.get("after", "0"))
        follower = partial(self._follower, request, visitor.tenant, info, after)
        return _LogResponse(lambda send: follower(send).send_lines())

    async def text(self, request: Request, visitor: session.Visitor) -> Response:
        """The log as plain text, for a browser without scripts; it follows the build too."""
        info = await self._actions.find(visitor.tenant, request.path_params["id"])
        follower = partial(self._follower, request, visitor.tenant, info, 0)
        return _LogResponse(lambda send: follower(send).send_text())

    def _follower(
        self, request: Request, tenant: str, info: BuildInfo, after: int, send: Send
    ) -> Follower:
        return Follower(
            service=self._service,
            request=request,
            send=send,
            tenant=tenant,
            info=info,
            after=after,
            over=partial(self._streams.until_over, request),
        )

    async def cancel(self, request: Request, visitor: session.Visitor) -> Response:
        """Cancel a build, and show it."""
        info = await self._actions.cancel(
            request, visitor.tenant, request.path_params["id"], by="web"
        )
        return RedirectResponse(f"../{info.id}", HTTPStatus.SEE_OTHER)

    async def retry(self, request: Request, visitor: session.Visitor) -> Response:
        """Retry a build, and show the new one."""
        info = await self._actions.retry(
            request, visitor.tenant, request.path_params["id"], by="web"
        )
        return RedirectResponse(f"../{info.id}", HTTPStatus.SEE_OTHER)


class _LogResponse(Response):
    """A log that is sent as it grows.

    Args:
        sending: sends the whole answer on an ASGI channel.
    """

    def __init__(self, sending: Callable[[Send], Awaitable[None]]) -> None:
        super().__init__()
        self._sending = sending

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Send the log until the build ends."""
        del scope, receive
        await self._sending(send)
