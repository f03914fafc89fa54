"""Read a request's tar, and check whether it may be built."""

from __future__ import annotations

import os

from function_builder.builds import cache_mounts
from function_builder.builds.build import BuildRequest
from function_builder.builds.epoch import EPOCH
from function_builder.builds.frontends import (
    BUILT_IN,
    MAX_DOCKERFILE_BYTES,
    frontend_attrs,
    is_pinned,
    repositories,
)
from function_builder.context.digests import content_digests
from function_builder.context.fingerprint import fingerprint
from function_builder.context.tree import recorded_entries
from function_builder.contract.archive import open_archive
from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.config import BuildConfig, parse_config
from function_builder.contract.context import (
    DOCKERFILE,
    check_spare_ignore_file,
    read_context,
    read_folder,
)
from function_builder.contract.errors import Refusal
from function_builder.contract.manifest import AbsentContent, MissingContent
from function_builder.contract.options import IMAGE_CONTEXT, cache_attrs
from function_builder.contract.reader import Reader
from function_builder.contract.secrets import SecretsKey, unseal
from function_builder.policy.expansion import refuse_expansion
from function_builder.policy.instructions import refuse_size
from function_builder.policy.mirrors import refuse_mirror
from function_builder.policy.policy import Policy
from function_builder.policy.programs import refuse_program
from function_builder.settings import Settings


def checked(
    reader: Reader,
    settings: Settings,
    key: SecretsKey | None,
    domain: str,
    tenant: str = DEFAULT_TENANT,
) -> BuildRequest:
    """Read a request's archive; may take seconds, so call it in a thread.

    Args:
        reader: the tar, whose signature was verified.
        settings: the operator's settings for the tenant.
        key: decrypts build secrets; None: the builder has no key.
        domain: the trust domain of the payload secret that signed the tar.
        tenant: whose it is.

    Raises:
        Refusal: 400, 403, 409, 413 or 415.
    """
    try:
        return _checked(reader, settings, key, domain, tenant)
    except AbsentContent as absent:
        raise MissingContent([absent.row]) from absent


def _checked(
    reader: Reader, settings: Settings, key: SecretsKey | None, domain: str, tenant: str
) -> BuildRequest:
    archive = open_archive(
        reader, max_entries=settings.max_context_entries, max_bytes=settings.largest_body
    )
    config = parse_config(archive.config)
    policy = _policy(settings)
    policy.check(config)
    _check_pushes(config, settings)
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
            "put data into files of the context, and COPY them",
        )
    dockerfile = archive.reader.read(context.dockerfile.offset, context.dockerfile.size)
    frontend = frontend_attrs(dockerfile, config.build_args, settings.allowed_frontends)
    refuse_size(dockerfile)
    refuse_expansion(dockerfile, config.build_args, config.platforms)
    if frontend != BUILT_IN:
        check_spare_ignore_file(archive, context, path, pinned=is_pinned(frontend))
    recorded = recorded_entries(context.entries, folders)
    digests = content_digests(archive.reader, recorded, archive.claims)
    return BuildRequest(
        config=config,
        reader=archive.reader,
        context=context.entries,
        folders=folders,
        digests=digests,
        fingerprint=fingerprint(recorded, digests),
        partial=any(offset < 0 for offset in archive.claims),
        frontend=frontend,
        secrets={} if archive.secrets is None else unseal(archive.secrets, key),
        trust_domain=domain,
        tenant=tenant,
        build_timeout=settings.build_timeout,
        sbom_generator=policy.sbom_generator,
        image_format=settings.image_format,
        keeps_cache_mounts=cache_mounts.are_kept(dockerfile),
        names_epoch=EPOCH.encode() in dockerfile,
    )


def _check_pushes(config: BuildConfig, settings: Settings) -> None:
    pushed = () if config.skip_push else (config.image, *config.tags)
    frontends = repositories(settings.allowed_frontends)
    programs = [*repositories(settings.allowed_frontends, pinned=False), settings.sbom_generator]
    for image in (*pushed, *(cache_attrs(cache)["ref"] for cache in config.cache_to)):
        settings.allowed_pushes.check(image)
        refuse_mirror(image, settings.registry_mirrors, frontends)
        refuse_program(image, filter(None, programs))


def _policy(settings: Settings) -> Policy:
    return Policy(
        caches=settings.allowed_caches,
        context_images=settings.allowed_context_images,
        frontends=repositories(settings.allowed_frontends),
        kept_caches=settings.cache_registry,
        sbom_generator=settings.sbom_generator,
        environment=os.environ,
    )
