"""The caller of a request without a body, which has a signature or the build's token."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from starlette.requests import Request
from structlog.contextvars import bind_contextvars

from function_builder.contract.answer_signature import AnswerSignature, build_answer
from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.errors import Refusal
from function_builder.contract.reads import opens, read_signer
from function_builder.contract.signature import SIGNATURE_HEADER
from function_builder.contract.tenancy import TENANT_HEADER, Scope
from function_builder.contract.timestamp import TIMESTAMP_HEADER, read_timestamp
from function_builder.server.claims import Claim, CurrentTenants, bearer, read_claim
from function_builder.server.keys import credential_id
from function_builder.settings import Settings

_UNSIGNED: Final = (
    f"the request is not signed: {SIGNATURE_HEADER} must be sha256= and the hex HMAC-SHA256, keyed "
    "by the builder's payload secret, of the method, a space and the target, such as "
    f"`GET /builds?limit=5`, and {TIMESTAMP_HEADER} must say when; "
    "or `Authorization: Bearer` has the build's token"
)


class Caller(NamedTuple):
    """The caller of a request.

    Attributes:
        tenant: the tenant whose builds it may see.
        answer: signs the answer; None: it is not signed.
        proof: a value that only this signed request has; empty if it is not signed.
        has_token: whether it has a build's token, which only reads and cancels that build.
        by: the kind of its proof, for the log.
        credential: the id of what proved it, for the audit log.
        is_operator: whether the builder's own payload secret proved it, or the builder asks for no
            proof. An operator sees what belongs to no tenant.
    """

    tenant: str = DEFAULT_TENANT
    answer: AnswerSignature | None = None
    proof: bytes = b""
    has_token: bool = False
    by: str = "anyone"
    credential: str = ""
    is_operator: bool = False

    def require_operator(self, what: str) -> None:
        """Check that it is the operator.

        Raises:
            Refusal: 403.
        """
        if not self.is_operator:
            raise Refusal(403, f"{what}: only the builder's own payload secret opens this")


async def identify(
    request: Request,
    settings: Settings,
    tenants: CurrentTenants | None = None,
    build_id: str = "",
) -> Caller:
    """Identify the caller.

    Args:
        request: without a body.
        settings: the paths of the payload secrets, and the largest age of a request.
        tenants: all of them; None: there is one.
        build_id: the build of the route, whose token is accepted; empty: none.

    Raises:
        Refusal: 400, 401 or 403.
    """
    caller = await _prove(request, settings, tenants, build_id)
    # So that a later refusal is recorded as this caller's.
    request.state.caller = caller
    if tenants is not None:
        # It holds for this request only, because each request has its own task.
        bind_contextvars(tenant=caller.tenant)
    return caller


async def _prove(
    request: Request, settings: Settings, tenants: CurrentTenants | None, build_id: str
) -> Caller:
    claimed = await read_claim(request, settings, tenants)
    tenant, secrets = claimed.tenant, claimed.secrets
    if claimed.scopes is not None:
        claimed.allow(Scope.READ if request.method in ("GET", "HEAD") else Scope.BUILD)
        return Caller(tenant, by="bearer token", credential=claimed.credential)
    if not secrets:
        return Caller(is_operator=True)
    if build_id and (token := bearer(request)):
        if opens(token, secrets, tenant, build_id):
            return Caller(tenant, has_token=True, by="token", credential="build-token")
        raise Refusal(401, "the token is not this build's, or the payload secret was replaced")
    stamp, signature = map(request.headers.get, (TIMESTAMP_HEADER, SIGNATURE_HEADER))
    secret = read_signer(secrets, request.method, _target(request), signature)
    timestamp = read_timestamp(stamp, signature, secrets)
    if secret is None or timestamp is None:
        raise Refusal(401, _UNSIGNED)
    ahead = timestamp.seconds - time.time()
    if abs(ahead) > settings.read_window:
        raise Refusal(
            401,
            f"{TIMESTAMP_HEADER} is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the "
            f"builder's clock, and at most {settings.read_window:g} s are accepted (read_window)",
        )
    answer = build_answer(secret, signature or "", stamp or "")
    credential = credential_id(settings, secret)
    return Caller(
        tenant,
        answer,
        timestamp.mac,
        by="signature",
        credential=credential,
        is_operator=tenant == DEFAULT_TENANT,
    )


async def key_claim(request: Request, settings: Settings, tenants: CurrentTenants) -> Claim:
    """The tenant whose key for build secrets is requested.

    A request that names its tenant must be proven, so that a stranger does not learn which names
    exist. The name of a host is not a secret.

    Raises:
        Refusal: 400, 401 or 403.
    """
    if TENANT_HEADER in request.headers or bearer(request):
        await identify(request, settings, tenants)
    return await tenants.claim(request)


def _target(request: Request) -> str:
    """Path and query as they were sent."""
    path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    query: bytes = request.scope["query_string"]
    return (path + b"?" + query if query else path).decode("utf-8", "replace")
