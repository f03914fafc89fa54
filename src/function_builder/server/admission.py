"""From a request's headers to a build that may start: size, slot, signature, archive, config."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from typing import Final, NamedTuple

from starlette.requests import Request

from function_builder.builds.build import BuildRequest
from function_builder.builds.epoch import EPOCH
from function_builder.builds.frontends import (
    BUILT_IN,
    MAX_DOCKERFILE_BYTES,
    frontend_attrs,
    is_pinned,
    repositories,
)
from function_builder.builds.phases import BuildPhase, Measures
from function_builder.context.digests import content_digests
from function_builder.context.tree import recorded_entries
from function_builder.contract.answer_signature import AnswerSignature, build_answer
from function_builder.contract.archive import open_archive
from function_builder.contract.config import BuildConfig, parse_config
from function_builder.contract.context import (
    DOCKERFILE,
    check_spare_ignore_file,
    read_context,
    read_folder,
)
from function_builder.contract.errors import Refusal
from function_builder.contract.options import IMAGE_CONTEXT, cache_attrs
from function_builder.contract.secrets import SecretsKey, unseal
from function_builder.contract.signature import SIGNATURE_HEADER, Signature
from function_builder.contract.timestamp import TIMESTAMP_HEADER, Timestamp, read_timestamp
from function_builder.policy.expansion import refuse_expansion
from function_builder.policy.mirrors import refuse_mirror
from function_builder.policy.policy import Policy
from function_builder.server import keys
from function_builder.server.crowd import source_of
from function_builder.server.peers import client_address
from function_builder.server.receiving import Intake, too_large
from function_builder.server.service import Phase, Service
from function_builder.server.slots import Closed, NoSlot, Place
from function_builder.server.spool import Spool
from function_builder.settings import Settings

PROOF_SECONDS: Final = 300.0
"""How far a request's time may lie from the builder's clock to prove its client at the headers.

A client whose clock is wrong is served too, among those that prove themselves by their body.
"""

LARGE_BYTES: Final = 256 * 1024
"""The check of a larger body may take seconds: many entries, or a megabyte of YAML."""


class Admitted(NamedTuple):
    """A request that may be built.

    Attributes:
        request: what to build.
        place: a body that is proven has a slot, or waits for one.
        signed: when, where the builder asks.
        answer: signs the answer, where requests are signed.
    """

    request: BuildRequest
    place: Place
    signed: Timestamp | None
    answer: AnswerSignature | None


async def admit(
    request: Request, service: Service, spool: Spool, held: ExitStack, measures: Measures
) -> Admitted:
    """Take a request's body, prove it and check it.

    Args:
        request: its headers are here, its body is on its way.
        service: what the endpoints share.
        spool: takes the body.
        held: takes what the request holds, such as its place among the slots, until it is closed.
        measures: is told when the body is here, and when it is checked.

    Raises:
        Refusal: the body is wrong, or need not be waited for; or there was no place.
        ClientDisconnect: the client went away.
    """
    secrets = _payload_secrets(service.settings)
    signature = Signature(secrets) if secrets else None
    _refuse_at_sight(request, service)
    timestamp = _timestamp(request, service, secrets, held)
    if timestamp is not None:
        service.take()
    await _receive(request, service, spool, signature, timestamp and timestamp.mac)
    measures.end(BuildPhase.UPLOAD)
    service.metrics.received_bytes.inc(spool.size)
    answer = _proven(request, signature) if signature is not None else None
    service.take()
    place = held.enter_context(service.slots.place())
    domain = keys.trust_domain(secrets[0]) if secrets else keys.OPEN_DOMAIN
    key = _secrets_key(service.settings)
    # A small body may take seconds too: a megabyte of YAML does.
    async with service.large_checks if spool.size > LARGE_BYTES else nullcontext():
        checked = await asyncio.to_thread(_check, spool, service.settings, key, domain)
    measures.end(BuildPhase.CHECK)
    return Admitted(checked, place, timestamp, answer)


def _proven(request: Request, signature: Signature) -> AnswerSignature:
    """The signature of the answer, by the secret that signed the request.

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
    return build_answer(secret, header, request.headers.get(TIMESTAMP_HEADER, ""))


def _refuse_at_sight(request: Request, service: Service) -> None:
    """What the headers alone give away.

    Raises:
        Refusal: 413, 415, 429 or 503.
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
    if service.slots.full:
        raise NoSlot(service.slots.limit)


def _timestamp(
    request: Request, service: Service, secrets: Sequence[bytes], held: ExitStack
) -> Timestamp | None:
    """When the request was signed, if its client says so; the body must still match.

    Raises:
        Refusal: 401, where the builder asks for it.
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
    signature: Signature | None,
    proof: bytes | None,
) -> None:
    intake = Intake(
        request.receive,
        signature=signature,
        max_bytes=service.settings.largest_body,
        timeout=service.settings.upload_timeout,
    )
    source = source_of(client_address(request, service.settings.trusted_proxies))
    with service.uploads.place(intake, source, proof):
        await intake.into(spool)


def _check(spool: Spool, settings: Settings, key: SecretsKey | None, domain: str) -> BuildRequest:
    """Read the archive; its bytes are proven by now.

    Raises:
        Refusal: 400, 413 or 415.
    """
    archive = open_archive(
        spool, max_entries=settings.max_context_entries, max_bytes=settings.largest_body
    )
    config = parse_config(archive.config)
    policy = _policy(settings)
    policy.check(config)
    _check_mirrors(config, settings)
    path = config.dockerfile or DOCKERFILE
    context = read_context(archive, path)
    folders = {
        name: read_folder(archive, source)
        for name, source in config.contexts.items()
        if not source.startswith(IMAGE_CONTEXT)
    }
    if context.dockerfile.size > MAX_DOCKERFILE_BYTES:
        raise Refusal(
            400,
            f"the Dockerfile is larger than {MAX_DOCKERFILE_BYTES} bytes: "
            "COPY what is not an instruction from files of the context",
        )
    dockerfile = archive.reader.read(context.dockerfile.offset, context.dockerfile.size)
    frontend = frontend_attrs(dockerfile, config.build_args, settings.allowed_frontends)
    refuse_expansion(dockerfile, config.build_args, config.platforms)
    if frontend != BUILT_IN:
        check_spare_ignore_file(archive, context, path, pinned=is_pinned(frontend))
    return BuildRequest(
        config=config,
        reader=archive.reader,
        context=context.entries,
        folders=folders,
        digests=content_digests(archive.reader, recorded_entries(context.entries, folders)),
        frontend=frontend,
        secrets={} if archive.secrets is None else unseal(archive.secrets, key),
        trust_domain=domain,
        sbom_generator=policy.sbom_generator,
        names_epoch=EPOCH.encode() in dockerfile,
    )


def _check_mirrors(config: BuildConfig, settings: Settings) -> None:
    pushed = () if config.skip_push else (config.image, *config.tags)
    frontends = repositories(settings.allowed_frontends)
    for image in (*pushed, *(cache_attrs(cache)["ref"] for cache in config.cache_to)):
        refuse_mirror(image, settings.registry_mirrors, frontends)


def _policy(settings: Settings) -> Policy:
    return Policy(
        caches=settings.allowed_caches,
        context_images=settings.allowed_context_images,
        frontends=repositories(settings.allowed_frontends),
        kept_caches=settings.cache_registry,
        sbom_generator=settings.sbom_generator,
        environment=os.environ,
    )


def _payload_secrets(settings: Settings) -> list[bytes]:
    if settings.disable_hmac:
        return []
    try:
        return keys.payload_secrets(settings.secret_mount_path)
    except keys.KeyFileError as error:
        raise keys.unavailable("its payload secret") from error


def _secrets_key(settings: Settings) -> SecretsKey | None:
    try:
        return keys.secrets_key(settings.build_secrets_private_key_path)
    except keys.KeyFileError as error:
        raise keys.unavailable("its key for build secrets") from error
