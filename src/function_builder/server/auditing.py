"""Write the decision about a request to the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from function_builder.contract.errors import Refusal
from function_builder.contract.tenancy import TENANT_HEADER
from function_builder.server.decisions import AuditEvent, Decision
from function_builder.server.peers import client_address
from function_builder.server.problems import problem
from function_builder.server.reading import Caller
from function_builder.server.service import Service


def note_decision(
    service: Service,
    request: Request,
    event: AuditEvent,
    caller: Caller | None,
    *,
    build: str = "",
    image: str = "",
    refusal: Refusal | None = None,
) -> None:
    """Write a decision, if the builder has an audit log.

    Args:
        service: has the log.
        request: the request.
        event: the kind of the request.
        caller: the proven caller; None: no tenant is proven.
        build: the build's id.
        image: the image to build.
        refusal: why it is denied; None: it is allowed.
    """
    if service.audit is None:
        return
    service.audit.note(
        event,
        Decision(
            tenant="" if caller is None else caller.tenant,
            claimed=request.headers.get(TENANT_HEADER, ""),
            credential="" if caller is None else caller.credential,
            source=client_address(request, service.settings.trusted_proxies),
            request=f"{request.method} {request.scope['path']}",
            image=image,
            build=build,
            why="" if refusal is None else f"{refusal.status}: {refusal.reason}",
        ),
    )


def decided(
    service: Service, event: AuditEvent, handler: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler: answer its refusals as problems, and write its decisions."""

    async def answer(request: Request) -> Response:
        refusal = None
        try:
            return await handler(request)
        except Refusal as refused:
            refusal = refused
            return problem(refused)
        finally:
            caller = getattr(request.state, "caller", None)
            build_id = request.path_params.get("id", "")
            note_decision(service, request, event, caller, build=build_id, refusal=refusal)

    return answer
