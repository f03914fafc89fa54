"""From a request's headers to a build that may start: size, slot, signature, archive, config."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import Response

from function_builder.builds.build import BuildRequest
from function_builder.builds.context import content_digests
from function_builder.builds.frontends import MAX_DIRECTIVE_BYTES, frontend_attrs
from function_builder.builds.measures import BuildPhase, Measures
from function_builder.contract.archive import open_archive
from function_builder.contract.config import parse_config
from function_builder.contract.errors import Refusal
from function_builder.contract.secrets import SecretsKey, unseal
from function_builder.contract.signature import SIGNATURE_HEADER, Signature
from function_builder.server import keys
from function_builder.server.answers import busy, refused
from function_builder.server.service import Phase, Service
from function_builder.server.spool import Intake, Spool, too_large
from function_builder.settings import Settings


class EarlyAnswer(Exception):
    """The request is answered before its body has arrived.

    Attributes:
        begun: whether its client was told to send the body, or let to.
    """

    def __init__(self, response: Response, *, begun: bool = False) -> None:
        super().__init__(response.status_code)
        self.response = response
        self.begun = begun


async def admit(
    request: Request, service: Service, spool: Spool, held: ExitStack, measures: Measures
) -> BuildRequest:
    """Take a request's body, prove it and check it.

    Args:
        request: its headers are here, its body is on its way.
        service: what the endpoints share.
        spool: takes the body.
        held: takes the build's slot; it is free again when this is closed.
        measures: is told when the body is here, and when it is checked.

    Raises:
        EarlyAnswer: there is no use in waiting for the body.
        Refusal: the body is here, and wrong.
        NoSlotError: the body is here and right, and every slot was taken meanwhile.
        ClientDisconnect: the client went away.
    """
    secrets = _payload_secrets(service.settings)
    signature = Signature(secrets) if secrets else None
    _refuse_at_sight(request, service)
    service.take()
    await _receive(request, service, spool, signature)
    measures.end(BuildPhase.UPLOAD)
    service.metrics.received_bytes.inc(spool.size)
    if signature is not None and not signature.matches(request.headers.get(SIGNATURE_HEADER)):
        raise Refusal(
            401,
            f"{SIGNATURE_HEADER} is absent or wrong: it must be sha256= and the hex HMAC-SHA256 "
            "of the whole body, keyed by the builder's payload secret",
        )
    held.enter_context(service.slots.slot())
    domain = keys.trust_domain(secrets[0]) if secrets else keys.OPEN_DOMAIN
    key = _secrets_key(service.settings)
    # A small body may take seconds too: a megabyte of YAML does.
    checked = await asyncio.to_thread(_check, spool, service.settings, key, domain)
    measures.end(BuildPhase.CHECK)
    if service.phase is Phase.ENDING:
        raise _shutting_down()
    return checked


def _refuse_at_sight(request: Request, service: Service) -> None:
    """What the headers alone give away.

    Raises:
        EarlyAnswer: 413, 415, 429 or 503.
    """
    limit = service.settings.max_body_bytes
    length = request.headers.get("content-length", "")
    encoding = request.headers.get("content-encoding", "identity")
    if service.phase in (Phase.DRAINING, Phase.ENDING):
        raise EarlyAnswer(refused(_shutting_down()))
    if length.isdigit() and int(length) > limit:
        raise EarlyAnswer(refused(too_large(limit)))
    if encoding.strip().lower() not in ("", "identity"):
        raise EarlyAnswer(refused(Refusal(415, "the body is compressed: send the tar as it is")))
    if service.slots.full:
        raise EarlyAnswer(busy(service.slots.limit))
    if service.uploads.full:
        raise EarlyAnswer(busy(service.slots.limit or service.uploads.limit))


def _shutting_down() -> Refusal:
    return Refusal(503, "the builder is shutting down: try again")


async def _receive(
    request: Request, service: Service, spool: Spool, signature: Signature | None
) -> None:
    intake = Intake(
        request.receive,
        signature=signature,
        max_bytes=service.settings.max_body_bytes,
        timeout=service.settings.upload_timeout,
        directory=service.settings.spool_dir,
    )
    try:
        with service.uploads.place(intake):
            await intake.into(spool)
    except Refusal as refusal:
        if intake.complete:
            raise
        raise EarlyAnswer(refused(refusal), begun=True) from refusal


def _check(spool: Spool, settings: Settings, key: SecretsKey | None, domain: str) -> BuildRequest:
    """Read the archive; its bytes are proven by now.

    Raises:
        Refusal: 400, 413 or 415.
    """
    archive = open_archive(spool, max_entries=settings.max_context_entries)
    config = parse_config(archive.config)
    dockerfile = spool.read(
        archive.dockerfile.offset, min(archive.dockerfile.size, MAX_DIRECTIVE_BYTES)
    )
    return BuildRequest(
        config=config,
        reader=spool,
        context=archive.context,
        digests=content_digests(spool, archive.context),
        frontend=frontend_attrs(dockerfile, config.build_args, settings.allowed_frontends),
        secrets={} if archive.secrets is None else unseal(archive.secrets, key),
        trust_domain=domain,
    )


def _payload_secrets(settings: Settings) -> list[bytes]:
    if settings.disable_hmac:
        return []
    try:
        return keys.payload_secrets(settings.secret_mount_path)
    except keys.KeyFileError as error:
        raise EarlyAnswer(refused(keys.unavailable("its payload secret"))) from error


def _secrets_key(settings: Settings) -> SecretsKey | None:
    try:
        return keys.secrets_key(settings.build_secrets_private_key_path)
    except keys.KeyFileError as error:
        raise keys.unavailable("its key for build secrets") from error
