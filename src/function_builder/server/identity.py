"""Which tenant a bearer token of an OIDC issuer proves.

All rejected tokens get the same answer after the same time. So neither shows which issuers and
tenants the file has. This includes a token whose issuer does not answer, because a 503 would show
a stranger that a tenant trusts the issuer. The log says why a token was rejected.

This module imports PyJWT, so it is only imported if a tenant trusts an issuer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog

from function_builder.contract.errors import Refusal
from function_builder.contract.tenancy import Scope
from function_builder.oidc.issuers import WAIT_SECONDS, Issuers
from function_builder.oidc.keys import Rejected
from function_builder.tenants.tenant import Proven, Tenants

REJECTED_SECONDS: Final = WAIT_SECONDS + 0.5
"""Seconds until the answer to a rejected token, including the longest wait for a key."""

MAX_SUBJECT: Final = 160
"""The most characters of a token's claim `sub` in the audit log."""

_log = structlog.get_logger(__name__)


async def prove(token: str, tenants: Tenants, issuers: Issuers, refusal: str) -> Proven:
    """The tenant of an OIDC token.

    Args:
        token: the value of the header, without `Bearer`.
        tenants: the current ones.
        issuers: the issuers that tenants trust.
        refusal: the text of the answer to a rejected token.

    Raises:
        Refusal: 401.
    """
    until = asyncio.get_running_loop().time() + REJECTED_SECONDS
    try:
        return _only(await issuers.verify(token), tenants)
    except Rejected as rejected:
        _log.info("a bearer token was rejected", why=str(rejected))
        await _wait_until(until)
        raise Refusal(401, refusal) from None


async def _wait_until(time: float) -> None:
    await asyncio.sleep(time - asyncio.get_running_loop().time())


def _only(claims: Mapping[str, Any], tenants: Tenants) -> Proven:
    found = tenants.of_claims(claims)
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise Rejected(f"its claims are those of {len(found)} tenants: {names}")
    ((tenant, trusts),) = found.items()
    return Proven(
        tenant,
        frozenset[Scope]().union(*(trust.scopes for trust in trusts)),
        f"oidc:{str(claims.get('sub', ''))[:MAX_SUBJECT]}",
        [trust.id for trust in trusts],
        claims,
    )
