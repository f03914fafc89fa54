"""The routes of the API's port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import resources

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import Refusal
from function_builder.contract.manifest import MANIFEST_HEADER
from function_builder.server import keys
from function_builder.server.answers import document, refused
from function_builder.server.auditing import decided
from function_builder.server.build import BUILD_ID, BuildEndpoint
from function_builder.server.buildkits import buildkits_routes
from function_builder.server.builds import BUILD_ID_HEADER, BuildsRoutes
from function_builder.server.claims import current_secret
from function_builder.server.decisions import AuditEvent
from function_builder.server.metrics import CountRequests
from function_builder.server.problems import problem
from function_builder.server.reading import identify, key_claim
from function_builder.server.service import Service

_log = structlog.get_logger(__name__)


def create_app(service: Service) -> Starlette:
    """The application that answers POST /build and what belongs to it."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("OK", headers={MANIFEST_HEADER: "1"})

    async def ready(_: Request) -> Response:
        if reason := service.unready_because():
            return PlainTextResponse(reason, 503)
        return PlainTextResponse("\n".join(_ready_lines(service)))

    async def public_key(request: Request) -> Response:
        try:
            settings, tenants, tenant = service.settings, service.tenants, DEFAULT_TENANT
            if tenants is not None:
                claim = await key_claim(request, settings, tenants)
                settings, tenant = claim.settings, claim.tenant
            secret = partial(current_secret, service.settings, tenants, tenant)
            answer = keys.public_key_answer(settings, request.query_params.get("nonce"), secret)
        except Refusal as refusal:
            return refused(refusal)
        return Response(answer, media_type="application/json")

    async def openapi(_: Request) -> Response:
        return Response(document, media_type="application/yaml")

    document = resources.files(__package__).joinpath("openapi.yaml").read_bytes()
    build = BuildEndpoint(service)
    routes = [
        Route("/build", build, methods=["POST"]),
        Route("/build/", build, methods=["POST"]),
        *BuildsRoutes(service).routes(),
        Route("/usage", decided(service, AuditEvent.USAGE, partial(_usage, service))),
        *buildkits_routes(service),
        Route("/publickey", public_key),
        Route("/public-key", public_key),
        Route("/healthz", healthz),
        Route("/ready", ready),
        Route("/openapi.yaml", openapi),
    ]
    if service.settings.web:
        # Imported here, because a template engine takes some megabytes of memory.
        from function_builder.server.web import web_routes  # noqa: PLC0415 (Jinja)

        routes += web_routes(service)
    paths = {route.path: route.path_regex for route in routes}
    app = Starlette(
        routes=routes,
        middleware=[Middleware(CountRequests, metrics=service.metrics, paths=paths)],
        exception_handlers={HTTPException: _http_error, Exception: _crash},
    )
    # A redirect of GET /builds/ would lead to a target that the client did not sign.
    app.router.redirect_slashes = False
    return app


async def _usage(service: Service, request: Request) -> Response:
    if service.usage is None:
        raise Refusal(501, "usage is counted by tenant, and tenants_file is empty")
    caller = await identify(request, service.settings, service.tenants)
    return document(await service.usage.document(request.query_params, caller), caller.answer)


def _form(request: Request) -> Callable[[Refusal], Response]:
    """The form of a route's refusals."""
    return problem if request.url.path.startswith(("/builds", "/buildkits", "/usage")) else refused


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _form(request)(Refusal(error.status_code, error.detail.lower()))
    response.headers.update(error.headers or {})
    return response


async def _crash(request: Request, error: Exception) -> Response:
    named = {BUILD_ID_HEADER: request.scope[BUILD_ID]} if BUILD_ID in request.scope else {}
    _log.error("a request crashed", path=request.url.path, exc_info=error, **named)
    answer = _form(request)(
        Refusal(500, "the builder failed: this is not the fault of your request")
    )
    answer.headers.update(named)
    return answer


def _ready_lines(service: Service) -> Iterator[str]:
    """The text of `/ready` with 200. It names no tenant, because any client may read it."""
    # 200 without the queue, so that a Service continues to send synchronous builds.
    waiting = service.builds.unready_because() if service.builds is not None else ""
    yield f"OK for synchronous builds: {waiting}" if waiting else "OK"
    # 200 in these cases too, because other tenants are served.
    if lost := service.pools.unreachable:
        yield f"tenants whose own BuildKits do not answer: {lost}; the builder's log says which"
    if service.tenants is not None and service.tenants.stale:
        yield "tenants_file has changed and is not valid: the builder's log says where"
