"""How a browser signs in: by a link, by a token in a form, or at an OIDC issuer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from function_builder.contract.errors import Refusal
from function_builder.server.auditing import note_decision
from function_builder.server.decisions import AuditEvent
from function_builder.server.reading import Caller
from function_builder.server.service import Service
from function_builder.server.web import session
from function_builder.server.web.answers import HEADERS, frame, html
from function_builder.server.web.views import Pages
from function_builder.tenants.tenant import Proven

if TYPE_CHECKING:
    from function_builder.server.web.code_flow import CodeFlow

_NOT_VALID: Final = "This token is not valid, or it has expired."

_MAX_FORM_BYTES: Final = 64 * 1024
"""A token has at most 16 KiB."""


class SignIn:
    """The page that signs a browser in, and what it leads to.

    Args:
        service: what the endpoints share.
        pages: render it.
    """

    def __init__(self, service: Service, pages: Pages) -> None:
        self._service = service
        self._pages = pages
        self._flow: CodeFlow | None = None
        if service.settings.web_oidc_issuer and service.tenants is not None:
            from function_builder.server.web.code_flow import CodeFlow  # noqa: PLC0415 (PyJWT)

            self._flow = CodeFlow(service.settings, service.tenants)

    def routes(self) -> list[Route]:
        """The routes of the sign-in."""
        return [
            Route("/web/sign-in", self._by_link),
            Route("/web/sign-in", self._by_form, methods=["POST"]),
            Route("/web/oidc", self._begin_flow),
            Route("/web/oidc-callback", self._end_flow),
        ]

    def page(self, request: Request, fault: str, status: int) -> Response:
        """The page that asks for a token."""
        has_tenants = self._service.tenants is not None
        # The issuer sends browsers back to this URL, where the cookie of the flow must be.
        start = f"{self._service.settings.web_url.rstrip('/')}/web/oidc" if self._flow else ""
        page = self._pages.sign_in(frame(request), fault, has_tenants=has_tenants, start=start)
        return html(page, status)

    async def _by_link(self, request: Request) -> Response:
        """Set the cookie of the link's token, or ask for a token."""
        token = request.query_params.get("token", "").strip()
        if not token:
            return self.page(request, "", HTTPStatus.OK)
        response = RedirectResponse("builds", HTTPStatus.SEE_OTHER, HEADERS)
        try:
            await self._exchange(response, request, token)
        except Refusal as refusal:
            return self._refused(request, refusal)
        self._decide(request)
        return response

    async def _by_form(self, request: Request) -> Response:
        """Exchange a token for the cookie of a session.

        A form of another site is refused. It could sign a browser in as another tenant, which would
        then see what the browser's user does.
        """
        response = RedirectResponse("builds", HTTPStatus.SEE_OTHER, HEADERS)
        try:
            session.require_same_origin(request)
            token = (await _form(request)).get("token", "").strip()
            await self._exchange(response, request, token, is_link=False)
        except Refusal as refusal:
            return self._refused(request, refusal)
        self._decide(request)
        return response

    async def _begin_flow(self, request: Request) -> Response:
        """Send the browser to the issuer."""
        try:
            return await self._require_flow().begin(request)
        except Refusal as refusal:
            return self._refused(request, refusal)

    async def _end_flow(self, request: Request) -> Response:
        """Sign the browser in that the issuer sent back."""
        response: Response = RedirectResponse("builds", HTTPStatus.SEE_OTHER, HEADERS)
        try:
            self._begin(response, request, await self._require_flow().end(request))
            self._decide(request)
        except Refusal as refusal:
            response = self._refused(request, refusal)
        if self._flow is not None:
            self._flow.forget(response, request)
        return response

    def _require_flow(self) -> CodeFlow:
        if self._flow is None:
            raise Refusal(404, "browsers do not sign in at an issuer here")
        return self._flow

    async def _exchange(
        self, response: Response, request: Request, token: str, *, is_link: bool = True
    ) -> None:
        """Set the cookie of a token; a link has none but its own, because URLs are logged.

        Raises:
            Refusal: 401 or 403, it is not valid; 503, the payload secret cannot be read.
        """
        tenants = self._service.tenants
        if session.sign_in(response, request, self._service, token):
            return
        if is_link or tenants is None or not token:
            raise Refusal(HTTPStatus.FORBIDDEN, _NOT_VALID)
        proven = await tenants.prove(token)
        self._begin(response, request, proven, until=float(proven.claims.get("exp", math.inf)))

    def _begin(
        self, response: Response, request: Request, proven: Proven, until: float = math.inf
    ) -> None:
        request.state.caller = Caller(proven.tenant, by="web", credential=proven.credential)
        session.begin(response, request, self._service, proven, until)

    def _refused(self, request: Request, refusal: Refusal) -> Response:
        self._decide(request, refusal)
        return self.page(request, refusal.reason, refusal.status)

    def _decide(self, request: Request, refusal: Refusal | None = None) -> None:
        caller = getattr(request.state, "caller", None)
        note_decision(self._service, request, AuditEvent.SIGN_IN, caller, refusal=refusal)


async def _form(request: Request) -> Mapping[str, str]:
    """The fields of a form.

    Raises:
        Refusal: 413.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_FORM_BYTES:
            raise Refusal(413, "the form is too large")
    return dict(parse_qsl(body.decode("ascii", "replace")))
