"""What `function-builder build` does, apart from reading its options."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import typer
from rich.console import Console

from function_builder.cli.builder_options import BuilderOptions
from function_builder.cli.calling import client_of, exits, note_on, print_image, read_file
from function_builder.cli.failing import FAILED
from function_builder.cli.options import Progress
from function_builder.cli.view import View
from function_builder.cli.views import choose_view
from function_builder.client import AsyncClient, BuildHandle, BuildOptions, BuildResult, BuildStatus
from function_builder.client.options import build_config
from function_builder.contract.config import BuildConfig, parse_config
from function_builder.contract.errors import Refusal
from function_builder.contract.options import shm_size


def run(
    directory: Path,
    options: BuildOptions,
    builder: BuilderOptions,
    *,
    secrets: Path | None,
    stream: bool,
    progress: Progress,
) -> None:
    """Build, show the build, and print the image; or exit with the code of what went wrong."""
    console = Console(stderr=True, highlight=False)
    config = _config(options)
    sealed = read_file(secrets, "--secrets") if secrets else None
    view = choose_view(console, f"Building {config.image or directory}", progress)
    client = client_of(builder, view.note, view.upload)
    with exits(console, builder, interrupted="interrupted; the builder stops the build"):
        result = asyncio.run(
            _build(client, view, directory, config, options, secrets=sealed, stream=stream)
        )
    if result.status is not BuildStatus.SUCCESS:
        raise typer.Exit(FAILED)
    print_image(result)


def submit(
    directory: Path, options: BuildOptions, builder: BuilderOptions, *, secrets: Path | None
) -> None:
    """Queue the build, and print its id; or exit with the code of what went wrong."""
    console = Console(stderr=True, highlight=False)
    config = _config(options)
    sealed = read_file(secrets, "--secrets") if secrets else None
    client = client_of(builder, note_on(console))
    with exits(console, builder, interrupted="interrupted; the build may have been queued"):
        build = asyncio.run(_submit(client, directory, config, options, secrets=sealed))
    position = build.info.position if build.info else None
    waiting = f", number {position} in the queue" if position else ""
    console.print(
        f"The build is queued{waiting}. Follow it: function-builder logs -f {build.id}",
        soft_wrap=True,
        markup=False,
    )
    typer.echo(build.id)


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
        raise typer.BadParameter(
            "name the image to push, or give --skip-push", param_hint="--image"
        )
    try:
        return parse_config(build_config(None, options)[0].to_json())
    except Refusal as refusal:
        raise typer.BadParameter(refusal.reason) from refusal


def build_arg(text: str) -> tuple[str, str]:
    """The name and the value of a build argument; a name alone takes the environment's value."""
    name, equals, value = text.partition("=")
    if not equals:
        if name not in os.environ:
            raise typer.BadParameter(
                f"{name} is not in the environment: write {name}=VALUE", param_hint="--build-arg"
            )
        value = os.environ[name]
    return name, value


def shm_bytes(text: str) -> int:
    """Bytes of a size with a unit; 0 without one."""
    try:
        return shm_size("--shm-size", text) if text else 0
    except Refusal as refusal:
        raise typer.BadParameter(refusal.reason) from refusal
