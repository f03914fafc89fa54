"""The command `function-builder up`: the whole stack on this machine, for a first visit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from aiobuildkit.hostport import HostPort
from function_builder.cli.life import Life
from function_builder.cli.next_steps import next_steps
from function_builder.cli.serve import (
    errors_in_a_line,
    own_buildkit,
    own_queue,
    run_until_signal,
    warn_of_near_misses,
)
from function_builder.cli.stack import Stack
from function_builder.cli.views import choose_view
from function_builder.cli.web import link
from function_builder.client import AsyncClient, BuildConfig, BuildStatus
from function_builder.engine import (
    BuildKitDaemon,
    BuildKitNetwork,
    EngineError,
    Registry,
)
from function_builder.engine.base_image import seed_base_image
from function_builder.engine.programs import install_missing
from function_builder.engine.tools import require_tools
from function_builder.logs import configure_logging
from function_builder.server import serve
from function_builder.settings import EMBEDDED, Settings

EXAMPLE: Final = Path(__file__).parent / "hello"
"""The example that `up` builds."""

_NEEDED: Final = ("runc", "unshare", "setpriv", "busybox")
_NEEDED_ROOTLESS: Final = ("rootlesskit", "newuidmap")
"""The system's programs. They are checked first, because compiling the others takes minutes."""

MIRRORED: Final = ("docker.io", "ghcr.io")
"""The registries that `up`'s registry replaces, because OpenFaaS' templates use both.

Their images are below these names, separate from the images that builds push.
"""

WEB_SECONDS: Final = 30 * 24 * 3600
"""How long the link opens the web pages."""

_FRONTENDS: Final = "docker/dockerfile=built-in,docker/dockerfile-upstream=built-in"
"""No image of `up`'s registry may be a frontend, because any RUN step may push to it."""


def up(
    *,
    listen: Annotated[
        str, typer.Option(envvar="listen", metavar="HOST:PORT", help="The builder's address.")
    ] = "127.0.0.1:8080",
    metrics_listen: Annotated[
        str,
        typer.Option(
            envvar="metrics_listen", metavar="HOST:PORT", help="The address of its metrics."
        ),
    ] = "127.0.0.1:8081",
    registry_listen: Annotated[
        str,
        typer.Option(envvar="registry_listen", metavar="HOST:PORT", help="The registry's address."),
    ] = "127.0.0.1:5000",
    state_dir: Annotated[
        Path,
        typer.Option(
            envvar="state_dir",
            metavar="DIR",
            help="The directory of the payload secret, caches, images and logs.",
        ),
    ] = Path(".run"),
    buildkit_network: Annotated[
        BuildKitNetwork,
        typer.Option(
            envvar="buildkit_network",
            help="The network of BuildKit and RUN steps: this machine's; or isolated, which "
            "reaches only the registry on 127.0.0.1, and no cloud's metadata service.",
        ),
    ] = BuildKitNetwork.HOST,
    example: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="The directory to build.",
            show_default="an example that comes with the command",
        ),
    ] = EXAMPLE,
) -> None:
    """Run BuildKit, a registry and the builder here, build an example, and serve until Ctrl-C.

    Everything listens on 127.0.0.1 and is stored in one directory. An ordinary user removes it with
    `rootlesskit rm -rf .run`, because BuildKit's files in it belong to other users.
    The registry also replaces Docker Hub and ghcr.io: their images are below docker.io/ and
    ghcr.io/ in it. It has a busybox image to build on, so no other registry is needed. `make up`
    accepts options as variables: make up registry_listen=127.0.0.1:5001

    BuildKit, the registry and nats-server are compiled first, unless they are installed.
    """
    stack = Stack(
        listen=listen,
        metrics_listen=metrics_listen,
        registry_listen=registry_listen,
        state=state_dir.absolute(),
        buildkit_network=buildkit_network,
        example=example.absolute(),
    )
    with errors_in_a_line():
        require_tools(_NEEDED if os.geteuid() == 0 else _NEEDED + _NEEDED_ROOTLESS)
        install_missing(_say)
    run_until_signal(_up(stack))


async def _up(stack: Stack) -> None:
    with stack.locked(), (stack.state / "builder.log").open("w", buffering=1) as log:
        life = Life(stack.url, _say)
        configure_logging(json=False, file=log, observe=life)
        warn_of_near_misses(os.environ, ("state_dir", "registry_listen", "buildkit_network"))
        stack.make_secrets()
        stack.check_addresses()
        registry = Registry(
            stack.state / "registry", listen=stack.registry_listen, log=stack.state / "registry.log"
        )
        settings = Settings.from_environment(os.environ)
        daemon = BuildKitDaemon(
            stack.state / "buildkit",
            config=own_buildkit(
                settings,
                mirrored=MIRRORED,
                registry=stack.registry,
            ),
            own_network=stack.buildkit_network,
            registry=registry,
            memory=settings.buildkit_memory,
            log=stack.state / "buildkitd.log",
        )
        _say(f"registry   {stack.registry}")
        async with registry:
            await seed_base_image(registry.address, "docker.io/library/busybox:latest")
            if await seed_base_image(registry.address):
                _say("           has a new library/busybox:latest, made of this machine's busybox")
            _say(f"buildkitd  {daemon.address}")
            environment = _with_queue(os.environ)
            nats_log = stack.state / "nats-server.log"
            async with daemon, own_queue(environment, stack.state, nats_log) as own:
                await _serve_and_show(stack, life, {**own, "buildkit_url": daemon.address})
    _say("all stopped")


def _with_queue(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The variables, with a queue of our own if its libraries are installed."""
    if find_spec("nats") and find_spec("obstore"):
        return {"nats_url": EMBEDDED, **environment}
    _say("queue      none: pip install 'function-builder[queue]'")
    return environment


async def _serve_and_show(stack: Stack, life: Life, environment: Mapping[str, str]) -> None:
    settings = Settings.from_environment(
        {
            "build_secrets_private_key_path": str(stack.secrets_key_file),
            "allowed_frontends": _FRONTENDS,
            # `up` listens on this machine only, and so do the receivers of a trial.
            "callback_hosts": "localhost:*,127.0.0.0/8:*,[::1]:*",
            "web": "true",
            **environment,
            "listen": stack.listen,
            "metrics_listen": stack.metrics_listen,
            "secret_mount_path": str(stack.state),
            # No Service still sends requests, so Ctrl-C ends it without a delay.
            "drain_delay": "0",
            "drain_timeout": "0",
        }
    )
    # No build may push images that replace another registry's.
    own = tuple((host, f"{stack.registry}/{host}") for host in MIRRORED)
    settings = replace(settings, registry_mirrors=settings.registry_mirrors + own)
    metrics = HostPort.parse(stack.metrics_listen).local
    _say(f"builder    {stack.url}, its metrics http://{metrics}/metrics")
    ready = asyncio.Event()
    serving = asyncio.create_task(serve(settings, on_ready=ready.set))
    showing = asyncio.create_task(_show(stack, life, ready))
    try:
        # Ctrl-C in the middle of the example ends `serving` first.
        await asyncio.wait((serving, showing), return_when=asyncio.FIRST_COMPLETED)
        if showing.done():
            showing.result()
            await serving
    finally:
        showing.cancel()
        serving.cancel()
        await asyncio.gather(showing, serving, return_exceptions=True)
    serving.result()


async def _show(stack: Stack, life: Life, ready: asyncio.Event) -> None:
    """Build the example as any client would, say how to build another, and show what is built."""
    await ready.wait()
    view = choose_view(Console(stderr=True, highlight=False), f"Building {stack.example}")
    secret = stack.secret_file.read_bytes().strip()
    async with (
        AsyncClient(stack.url, payload_secret=secret) as client,
        client.stream(stack.example, BuildConfig(image=stack.image)) as build,
    ):
        with view:
            async for progress in build:
                view.progress(progress)
            result = await build.result()
        view.finish(result)
    if result.status is not BuildStatus.SUCCESS:
        raise EngineError(f"the example was not built; logs are in {stack.state}")
    page = link(stack.url, secret, WEB_SECONDS)
    _say(
        f"\nimage  {result.image}@{result.digest}\n\nSee the builds:\n\n{page}\n{next_steps(stack)}"
    )
    life.begin()


def _say(text: str) -> None:
    typer.echo(text)
