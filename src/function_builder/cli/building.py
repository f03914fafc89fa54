"""What `function-builder build` does, apart from reading its options."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from function_builder.cli.calling import client_of, exits, note_on, print_image, read_file
from function_builder.cli.exit_codes import FAILED
from function_builder.cli.given import (
    DEFAULT_URL,
    DEFAULT_WAIT_SECONDS,
    BuilderOptions,
    Given,
    Mistake,
    Progress,
    contexts,
    dockerfile_in,
    pairs,
)
from function_builder.cli.output import StandardError, write
from function_builder.cli.view import View
from function_builder.cli.views import choose_view
from function_builder.client import (
    AsyncClient,
    Attest,
    BuildOptions,
    BuildResult,
    BuildStatus,
    blocking,
)
from function_builder.client.options import build_config
from function_builder.contract.config import BuildConfig, parse_config
from function_builder.contract.errors import Refusal
from function_builder.contract.options import shm_size

if TYPE_CHECKING:
    from function_builder.client import BuildHandle
    from function_builder.client.runtime import Runtime

_T = TypeVar("_T")


def build(directory: Path, given: Given) -> None:
    """Build, show the build, and print the image; or exit with the code of what went wrong.

    Raises:
        Mistake: an option is wrong; nothing was sent.
    """
    options = _build_options(directory, given)
    config = _config(options)
    builder = _builder_options(given)
    secrets = given.get("secrets")
    sealed = read_file(secrets, "--secrets") if secrets else None
    if given.get("detach"):
        _queue(directory, config, options, builder, secrets=sealed)
        return
    output = StandardError()
    progress = Progress.QUIET if given.get("quiet") else given.get("progress", Progress.AUTO)
    view = choose_view(output, f"Building {config.image or directory}", progress)
    runtime = _runtime(builder.url)
    client = client_of(builder, view.note, view.upload, runtime)
    stream = given.get("stream", True)
    with exits(output, builder, interrupted="interrupted; the builder stops the build"):
        building = _build(client, view, directory, config, options, secrets=sealed, stream=stream)
        result = _run(building, runtime)
    if result.status is not BuildStatus.SUCCESS:
        raise SystemExit(FAILED)
    print_image(result)


def _queue(
    directory: Path,
    config: BuildConfig,
    options: BuildOptions,
    builder: BuilderOptions,
    *,
    secrets: bytes | None,
) -> None:
    """Queue the build, and print its id; or exit with the code of what went wrong."""
    output = StandardError()
    runtime = _runtime(builder.url)
    client = client_of(builder, note_on(output), runtime=runtime)
    with exits(output, builder, interrupted="interrupted; the build may have been queued"):
        build = _run(_submit(client, directory, config, options, secrets=secrets), runtime)
    position = build.info.position if build.info else None
    waiting = f", number {position} in the queue" if position else ""
    write(output, f"The build is queued{waiting}. Follow it: function-builder logs -f {build.id}")
    print(build.id, flush=True)  # noqa: T201 (standard output is for it)


def _runtime(url: str) -> Runtime | None:
    """How the command's client waits; None: in asyncio's event loop, which a proxy needs."""
    try:
        return None if blocking.has_proxy(url) else blocking.Blocking()
    except ValueError as error:
        raise Mistake(str(error)) from error


def _run(coroutine: Coroutine[Any, Any, _T], runtime: Runtime | None) -> _T:
    if runtime is not None:
        return blocking.run(coroutine)
    import asyncio

    return asyncio.run(coroutine)


def _build_options(directory: Path, given: Given) -> BuildOptions:
    provenance = given.get("provenance", "")
    return BuildOptions(
        image=given.get("image", ""),
        build_args=dict(map(_build_arg, given.get("build_arg") or ())),
        platforms=given.get("platform") or (),
        skip_push=given.get("skip_push", False),
        target=given.get("target", ""),
        dockerfile=dockerfile_in(directory, given.get("file")),
        tags=given.get("tag") or (),
        labels=pairs(given.get("label"), "--label"),
        annotations=pairs(given.get("annotation"), "--annotation"),
        no_cache=given.get("no_cache") or given.get("no_cache_filter") or False,
        pull=given.get("pull", False),
        oci_media_types=given.get("oci_mediatypes"),
        compression=given.get("compression", ""),
        compression_level=given.get("compression_level"),
        rewrite_timestamp=given.get("rewrite_timestamp", False),
        add_hosts=given.get("add_host") or (),
        shm_size=_shm_bytes(given.get("shm_size", "")),
        ulimits=given.get("ulimit") or (),
        cache_from=given.get("cache_from") or (),
        cache_to=given.get("cache_to") or (),
        contexts=contexts(given.get("build_context")),
        attest=Attest(
            {"true": "min", "false": ""}.get(provenance, provenance), given.get("sbom", False)
        ),
    )


def _builder_options(given: Given) -> BuilderOptions:
    return BuilderOptions(
        url=given.get("url", DEFAULT_URL),
        payload_secret=given.get("payload_secret"),
        headers=given.get("header") or (),
        cacert=given.get("cacert"),
        cert=given.get("cert"),
        key=given.get("key"),
        signed_answers=given.get("signed_answers"),
        wait=given.get("wait", DEFAULT_WAIT_SECONDS),
        public_key=given.get("builder_public_key"),
        full=given.get("full", False),
    )


async def _submit(
    client: AsyncClient,
    directory: Path,
    config: BuildConfig,
    options: BuildOptions,
    *,
    secrets: bytes | None,
) -> BuildHandle:
    async with client:
        named = options["contexts"]
        return await client.submit(directory, config, secrets=secrets, contexts=named)


async def _build(
    client: AsyncClient,
    view: View,
    directory: Path,
    config: BuildConfig,
    options: BuildOptions,
    *,
    secrets: bytes | None,
    stream: bool,
) -> BuildResult:
    named = options["contexts"]
    async with client:
        with view:
            if stream:
                async with client.stream(
                    directory, config, secrets=secrets, contexts=named
                ) as build:
                    async for progress in build:
                        view.progress(progress)
                    result = await build.result()
            else:
                result = await client.build(directory, config, secrets=secrets, contexts=named)
                view.progress(result)
        view.finish(result)
    return result


def _config(options: BuildOptions) -> BuildConfig:
    """The configuration in the options, checked as a builder checks it."""
    if not options["image"] and not options["skip_push"]:
        raise Mistake("name the image to push, or give --skip-push", "--image")
    try:
        return parse_config(build_config(None, options)[0].to_json())
    except Refusal as refusal:
        raise Mistake(refusal.reason) from refusal


def _build_arg(text: str) -> tuple[str, str]:
    """The name and the value of a build argument; a name alone takes the environment's value."""
    name, equals, value = text.partition("=")
    if not equals:
        if name not in os.environ:
            raise Mistake(f"{name} is not in the environment: write {name}=VALUE", "--build-arg")
        value = os.environ[name]
    return name, value


def _shm_bytes(text: str) -> int:
    """Bytes of a size with a unit; 0 without one."""
    try:
        return shm_size("--shm-size", text) if text else 0
    except Refusal as refusal:
        raise Mistake(refusal.reason) from refusal
