"""Receive a build request, and verify its tenant by its headers and its signed body."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from starlette.requests import Request

from function_builder.builds.phases import BuildPhase, Measures
from function_builder.contract.answer_signature import AnswerSignature, build_answer
from function_builder.contract.errors import Refusal
from function_builder.contract.signature import SIGNATURE_HEADER, Signature
from function_builder.contract.tenancy import Scope
from function_builder.contract.timestamp import TIMESTAMP_HEADER, Timestamp, read_timestamp
from function_builder.server.claims import Claim, read_claim
from function_builder.server.crowd import source_of
from function_builder.server.keys import credential_id
from function_builder.server.peers import client_address
from function_builder.server.places import Closed
from function_builder.server.receiving import Intake, too_large
from function_builder.server.service import Phase, Service
from function_builder.server.spool import Spool

PROOF_SECONDS: Final = 300.0
"""The largest difference between `X-Build-Timestamp` and the builder's clock, in seconds.

With a larger one, the request is accepted too, but its headers do not prove its client.
"""


def refuse_by_headers(request: Request, service: Service) -> None:
    """Refuse a request that cannot be accepted, whatever its body is.

    Raises:
        Refusal: 413, 415 or 503.
    """
    limit = service.settings.largest_body
    length = request.headers.get("content-length", "")
    encoding = request.headers.get("content-encoding", "identity")
    if service.phase in (Phase.DRAINING, Phase.ENDING):
        raise Closed
    if length.isdigit() and int(length) > limit:
        raise too_large(limit)
    if encoding.strip().lower() not in ("", "identity"):
        raise Refusal(415, "the body is compressed: send the tar as it is")


class Proof(NamedTuple):
    """The proof of a received request.

    Attributes:
        claim: its tenant, which is proven now.
        timestamp: the verified `X-Build-Timestamp`; None: it has none, or one that proves nothing.
        answer: signs the answer; None: the request is not signed.
        credential: the name in the audit log of what proved it.
    """

    claim: Claim
    timestamp: Timestamp | None
    answer: AnswerSignature | None
    credential: str


async def prove(
    request: Request,
    service: Service,
    spool: Spool,
    *,
    build_id: str,
    held: ExitStack,
    measures: Measures,
) -> Proof:
    """Receive the body of a request, and verify its tenant.

    Args:
        request: its headers have arrived, its body has not.
        service: has the secrets, the tenants and the limits.
        spool: stores the body.
        build_id: its build's id.
        held: receives the claim on its timestamp, which refuses equal requests until it is closed.
        measures: receives the end of the upload.

    Raises:
        Refusal: 400, 401, 403, 408, 413, 429, 503 or 507.
        ClientDisconnect: the client disconnected.
    """
    claim = await read_claim(request, service.settings, service.tenants)
    claim.allow(Scope.BUILD)
    has_token = claim.scopes is not None
    # A bearer token is sufficient, but a signature that is sent with it must be valid.
    signed = SIGNATURE_HEADER in request.headers or not has_token
    secrets = claim.secrets if signed else ()
    signature = Signature(secrets) if secrets else None
    timestamp = _claim_timestamp(request, service, secrets, held) if signed else None
    early = timestamp.mac if timestamp else build_id.encode() if has_token else None
    if early is not None:
        service.accept()
    # Without a proof, a tenant's own limit would show that the tenant exists.
    limit = (service.settings if early is None else claim.settings).largest_body
    await _receive(request, service, spool, signature=signature, proof=early, limit=limit)
    measures.end(BuildPhase.UPLOAD)
    service.metrics.received_bytes.inc(spool.size)
    answer, credential = None, claim.credential
    if signature is not None:
        secret = _signer(request, signature)
        answer = _answer_signature(request, secret)
        credential = credential_id(service.settings, secret)
    if spool.size > claim.settings.largest_body:
        raise too_large(claim.settings.largest_body)
    service.accept()
    return Proof(claim, timestamp, answer, credential)


def _claim_timestamp(
    request: Request, service: Service, secrets: Sequence[bytes], held: ExitStack
) -> Timestamp | None:
    """The verified timestamp of a request, if it has one; the body must still match.

    Args:
        request: its headers have arrived.
        service: refuses replays, if `replay_window` is set.
        secrets: the payload secrets that may have signed it.
        held: receives the claim on this timestamp, which refuses equal requests until it is
            closed.

    Raises:
        Refusal: 401, the timestamp is required and not valid, or the request is a replay.
    """
    header, signature = map(request.headers.get, (TIMESTAMP_HEADER, SIGNATURE_HEADER))
    if service.replays is not None:
        return held.enter_context(service.replays.claim(header, signature, secrets))
    timestamp = read_timestamp(header, signature, secrets)
    if timestamp is None or abs(timestamp.seconds - time.time()) > PROOF_SECONDS:
        return None
    return timestamp


async def _receive(
    request: Request,
    service: Service,
    spool: Spool,
    *,
    signature: Signature | None,
    proof: bytes | None,
    limit: int,
) -> None:
    """Receive a body into a spool, within the limits of uploads.

    Args:
        request: its body has not arrived yet.
        service: has the limits.
        spool: stores the body.
        signature: hashes the body; None: no signature is checked.
        proof: identifies the headers that have proven the client; None: it is not proven yet.
        limit: the most bytes.

    Raises:
        Refusal: 408, 413, 429, 503 or 507.
        ClientDisconnect: the client disconnected.
    """
    intake = Intake(
        request.receive,
        signature=signature,
        max_bytes=limit,
        timeout=service.settings.upload_timeout,
    )
    source = source_of(client_address(request, service.settings.trusted_proxies))
    with service.uploads.place(intake, source, proof):
        await intake.into(spool)


def _signer(request: Request, signature: Signature) -> bytes:
    """The secret that signed the body.

    Raises:
        Refusal: 401.
    """
    header = request.headers.get(SIGNATURE_HEADER, "")
    secret = signature.signer(header)
    if secret is None:
        raise Refusal(
            401,
            f"{SIGNATURE_HEADER} is absent or wrong: it must be sha256= and the hex HMAC-SHA256 "
            "of the whole body, keyed by the builder's payload secret",
        )
    return secret


def _answer_signature(request: Request, secret: bytes) -> AnswerSignature:
    """The signature of the answer, by the secret that signed the request."""
    signature, stamp = (
        request.headers.get(name, "") for name in (SIGNATURE_HEADER, TIMESTAMP_HEADER)
    )
    return build_answer(secret, signature, stamp)
