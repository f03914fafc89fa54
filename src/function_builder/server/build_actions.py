"""Read, cancel and retry one build, for clients of the API and for the web pages."""

from __future__ import annotations

from typing import Final

import structlog
from starlette.requests import Request

from function_builder.contract.builds import BuildInfo, is_id
from function_builder.contract.errors import Refusal
from function_builder.queue.port import Builds, Idempotency
from function_builder.server.asking import no_queue
from function_builder.server.peers import client_address
from function_builder.server.places import Closed
from function_builder.server.service import Phase, Service

_MAX_LINE: Final = (1 << 53) - 1
"""The largest number of a line that a client may name: JavaScript has no larger integers."""

_log = structlog.get_logger(__name__)


class BuildActions:
    """What a proven caller may do with the builds of its tenant.

    Args:
        service: what the endpoints share.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def builds(self) -> Builds:
        """The builds of all tenants.

        Raises:
            Refusal: 501, this builder has no queue.
        """
        if self._service.builds is None:
            raise no_queue()
        return self._service.builds

    async def find(self, tenant: str, build_id: str) -> BuildInfo:
        """A build.

        Raises:
            Refusal: 404.
        """
        return _found(await self.builds.get(tenant, checked_id(build_id)))

    async def cancel(self, request: Request, tenant: str, build_id: str, *, by: str) -> BuildInfo:
        """Cancel a build; an ended build does not change.

        Args:
            request: names the client, for the log.
            tenant: whose build it is.
            build_id: the build.
            by: the kind of the request's proof, for the log.

        Raises:
            Refusal: 404.
        """
        info = _found(await self.builds.cancel(tenant, checked_id(build_id)))
        self._note("build cancelled by request", request, info, by)
        return info

    async def retry(
        self,
        request: Request,
        tenant: str,
        build_id: str,
        *,
        by: str,
        idempotency: Idempotency | None = None,
    ) -> BuildInfo:
        """Queue a new build of a kept body, and return the new build.

        Args:
            request: names the client, for the log and the new build.
            tenant: whose build it is.
            build_id: the build whose body is built again.
            by: the kind of the request's proof, for the log.
            idempotency: makes repetitions of the request one retry.

        Raises:
            Refusal: 404; 429, the tenant has used its builds of this hour; 503, the builder ends.
        """
        service = self._service
        if service.phase in (Phase.DRAINING, Phase.ENDING):
            raise Closed
        checked_id(build_id)
        requester = client_address(request, service.settings.trusted_proxies)
        try:
            async with service.quotas.counted(tenant):
                info = _found(
                    await self.builds.retry(
                        tenant, build_id, requester=requester, idempotency=idempotency
                    )
                )
        except Refusal as refusal:
            if service.usage is not None:
                service.usage.count_limited(tenant, refusal)
            raise
        self._note("build retried", request, info, by)
        return info

    def _note(self, event: str, request: Request, info: BuildInfo, by: str) -> None:
        client = client_address(request, self._service.settings.trusted_proxies)
        _log.info(event, build=info.id, status=info.state.value, client=client, by=by)


def read_line_number(text: str) -> int:
    """Read the number of the last line of a log that a client has.

    Raises:
        Refusal: 400.
    """
    return read_number("after", text, least=0, most=_MAX_LINE)


def read_number(name: str, text: str, *, least: int, most: int) -> int:
    """Read a number of a query.

    Raises:
        Refusal: 400.
    """
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_LINE))
    if not digits or not least <= int(text) <= most:
        raise Refusal(400, f"{name} must be a number from {least} to {most}")
    return int(text)


def checked_id(build_id: str) -> str:
    """Check that a text can be a build's id, and return it.

    Raises:
        Refusal: 404.
    """
    if not is_id(build_id):
        raise _unknown()
    return build_id


def _found(info: BuildInfo | None) -> BuildInfo:
    if info is None:
        raise _unknown()
    return info


def _unknown() -> Refusal:
    return Refusal(404, "there is no such build, or it was deleted")
