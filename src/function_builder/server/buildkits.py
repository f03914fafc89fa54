"""The routes of the BuildKits, for the operator: their state, and the removal of their caches."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aiobuildkit import BuildKitError
from function_builder.buildkits.daemon import Daemon
from function_builder.contract.builds import rfc3339
from function_builder.contract.errors import Refusal, shown
from function_builder.server.answers import document
from function_builder.server.auditing import decided
from function_builder.server.decisions import AuditEvent
from function_builder.server.reading import Caller, identify
from function_builder.server.service import Service

_CACHE_WAIT_SECONDS: Final = 5.0
"""How long a report waits for new numbers. After this time it has the previous ones."""

_PRUNE_SECONDS: Final = 300.0

_KIND: Final = re.compile(r"[a-z]+(?:\.[a-z]+)*")

UNPRUNED_KINDS: Final = frozenset({"internal", "frontend"})
"""Kinds of records that BuildKit removes only in a prune of `all`."""

_log = structlog.get_logger(__name__)


class Pruned(NamedTuple):
    """What a prune removed.

    Attributes:
        records: their number.
        size: bytes.
    """

    records: int
    size: int

    def to_document(self) -> dict[str, object]:
        """Its form in JSON."""
        return {"prunedRecords": self.records, "prunedBytes": self.size}


def buildkits_routes(service: Service) -> list[Route]:
    """The routes of `/buildkits` and below."""
    return [
        Route("/buildkits", decided(service, AuditEvent.BUILDKITS, partial(_read, service))),
        Route(
            "/buildkits/prune",
            decided(service, AuditEvent.PRUNE, partial(_prune, service)),
            methods=["POST"],
        ),
    ]


async def buildkits_document(service: Service, caller: Caller) -> dict[str, object]:
    """All BuildKits; numbers that do not arrive within some seconds are the previous ones.

    Raises:
        Refusal: 403.
    """
    caller.require_operator("BuildKits")
    await asyncio.gather(*map(_ask, service.pools.each_daemon()))
    return {
        "buildkits": [
            _document(daemon, service.pools.tenants(pool))
            for pool in service.pools.all
            for daemon in pool.daemons.values()
        ]
    }


async def prune(service: Service, caller: Caller, address: str, kind: str) -> Pruned:
    """Remove what no build uses from the cache of a BuildKit.

    Args:
        service: what the endpoints share.
        caller: who asks.
        address: of the BuildKit.
        kind: of the records; empty: all but those that BuildKit keeps for itself.

    Raises:
        Refusal: 400, an argument is wrong; 403; 404, there is no such BuildKit; 503, it does not
            answer.
    """
    caller.require_operator("BuildKits")
    daemon = _named(service, address)
    if kind and not _KIND.fullmatch(kind):
        raise Refusal(400, f"kind: {shown(kind)} is not one, such as source.local")
    filters = [f"type=={kind}"] if kind else []
    try:
        async with asyncio.timeout(_PRUNE_SECONDS):
            removed = await daemon.client.prune(filters=filters)
    except (BuildKitError, TimeoutError) as error:
        reason = str(error) or f"it did not end within {_PRUNE_SECONDS:g} s"
        raise Refusal(503, f"the cache was not pruned to the end: {reason}") from error
    pruned = Pruned(len(removed), sum(record.size for record in removed))
    _log.info("cache pruned", buildkit=address, kind=kind, bytes=pruned.size, by=caller.by)
    return pruned


async def _read(service: Service, request: Request) -> Response:
    caller = await identify(request, service.settings, service.tenants)
    return document(await buildkits_document(service, caller), caller.answer)


async def _prune(service: Service, request: Request) -> Response:
    caller = await identify(request, service.settings, service.tenants)
    query = request.query_params
    pruned = await prune(service, caller, query.get("address", ""), query.get("kind", ""))
    return document(pruned.to_document(), caller.answer)


def _named(service: Service, address: str) -> Daemon:
    for daemon in service.pools.each_daemon():
        if daemon.address == address:
            return daemon
    raise Refusal(404, f"address: {shown(address)} is not that of a BuildKit of this builder")


async def _ask(daemon: Daemon) -> None:
    if daemon.reachable:
        with suppress(BuildKitError, TimeoutError):
            async with asyncio.timeout(_CACHE_WAIT_SECONDS):
                await daemon.ask_cache()


def _document(daemon: Daemon, tenants: list[str]) -> dict[str, object]:
    found: dict[str, object] = {
        "address": daemon.address,
        "reachable": daemon.reachable,
        "runningBuilds": daemon.builds,
        "workers": [
            {
                "id": worker.id,
                "version": worker.version.version,
                "platforms": [str(platform) for platform in worker.platforms],
            }
            for worker in daemon.workers
        ],
    }
    if daemon.reason:
        found["reason"] = daemon.reason
    if tenants:
        found["tenants"] = tenants
    if daemon.cache is not None:
        found["cache"] = {
            "asked": rfc3339(daemon.asked_at),
            "bytes": daemon.disk_bytes,
            "kinds": [
                {
                    "kind": use.kind,
                    "records": use.records,
                    "bytes": use.size,
                    "reclaimableBytes": use.reclaimable,
                }
                for use in daemon.cache
            ],
        }
    return found
