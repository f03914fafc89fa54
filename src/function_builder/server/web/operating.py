"""The pages of the BuildKits and of usage. They have the API's own documents."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from function_builder.contract.errors import Refusal
from function_builder.server.buildkits import buildkits_document, prune
from function_builder.server.reading import Caller
from function_builder.server.service import Service
from function_builder.server.web.answers import frame, html
from function_builder.server.web.session import Visitor
from function_builder.server.web.usage import Month
from function_builder.server.web.views import Pages


class Operating:
    """The handlers.

    Args:
        service: what the endpoints share.
        pages: render them.
    """

    def __init__(self, service: Service, pages: Pages) -> None:
        self._service = service
        self._pages = pages

    async def buildkits(self, request: Request, _: Visitor) -> Response:
        """The BuildKits."""
        found = await buildkits_document(self._service, _caller(request))
        return html(self._pages.buildkits(frame(request), found))

    async def ask(self, request: Request, _: Visitor) -> Response:
        """Ask before a cache is pruned."""
        _caller(request).require_operator("BuildKits")
        query = request.query_params
        address, kind = query.get("address", ""), query.get("kind", "")
        return html(self._pages.prune(frame(request), address=address, kind=kind))

    async def prune(self, request: Request, _: Visitor) -> Response:
        """Prune a cache, and say what was removed."""
        query = request.query_params
        address, kind = query.get("address", ""), query.get("kind", "")
        pruned = await prune(self._service, _caller(request), address, kind)
        return html(self._pages.prune(frame(request), address=address, kind=kind, pruned=pruned))

    async def usage(self, request: Request, _: Visitor) -> Response:
        """What tenants used in a month."""
        if self._service.usage is None:
            raise Refusal(501, "usage is counted by tenant, and tenants_file is empty")
        month = Month.parse(request.query_params.get("month", ""))
        days = {"from": month.first.isoformat(), "to": month.last.isoformat()}
        found = await self._service.usage.document(days, _caller(request))
        return html(self._pages.usage(frame(request), found, month))


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller
