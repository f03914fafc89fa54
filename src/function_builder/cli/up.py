"""The command `function-builder up`: the whole stack on this machine, for a first visit."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from aiobuildkit.hostport import HostPort
from function_builder.cli.life import Life
from function_builder.cli.serve import (
    errors_in_a_line,
    own_buildkit,
    own_queue,
    run_until_signal,
    warn_of_near_misses,
)
from function_builder.cli.views import choose_view
from function_builder.cli.web import link
from function_builder.client import AsyncClient, BuildConfig, BuildStatus
from function_builder.contract.secrets import SecretsKey
from function_builder.engine import (
    BuildKitDaemon,
    EngineError,
    Registry,
    ensure_free,
)
from function_builder.engine.base_image import seed_base_image
from function_builder.engine.programs import install_missing
from function_builder.engine.tools import require_tools
from function_builder.logs import configure_logging
from function_builder.queue.webhooks import format_secret
from function_builder.server import serve
from function_builder.settings import EMBEDDED, Settings

EXAMPLE: Final = Path(__file__).parent / "hello"
"""What is built to show that all works."""

_NEEDED: Final = ("runc", "unshare", "setpriv", "busybox")
_NEEDED_ROOTLESS: Final = ("rootlesskit", "newuidmap")
"""The system's programs, which are looked for before minutes are spent on compiling the others."""

MIRRORED: Final = ("docker.io", "ghcr.io")
"""What `up`'s registry stands in for: the base images of OpenFaaS' templates come from both.

Their images lie below these names, apart from those that builds push.
"""

WEB_SECONDS: Final = 30 * 24 * 3600
"""How long the link opens the web pages."""

_FRONTENDS: Final = "docker/dockerfile=built-in,docker/dockerfile-upstream=built-in"
"""Any RUN step may push to `up`'s registry, so that no image there is to read Dockerfiles."""


def up(
    *,
    listen: Annotated[
        str, typer.Option(envvar="listen", metavar="HOST:PORT", help="The builder's address.")
    ] = "127.0.0.1:8080",
    metrics_listen: Annotated[
        str, typer.Option(envvar="metrics_listen", metavar="HOST:PORT", help="Its metrics'.")
    ] = "127.0.0.1:8081",
    registry_listen: Annotated[
        str,
        typer.Option(envvar="registry_listen", metavar="HOST:PORT", help="The registry's."),
    ] = "127.0.0.1:5000",
    state_dir: Annotated[
        Path,
        typer.Option(
            envvar="state_dir", metavar="DIR", help="The payload secret, caches, images and logs."
        ),
    ] = Path(".run"),
    example: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="What is built to show that all works.",
            show_default="an example that comes with the command",
        ),
    ] = EXAMPLE,
) -> None:
    """Run BuildKit, a registry and the builder here, build an example, and serve until Ctrl-C.

    Everything listens on 127.0.0.1 and is kept in one directory, which an ordinary user removes
    with `rootlesskit rm -rf .run`, for BuildKit's files there belong to other ids.
    The registry stands in for Docker Hub and ghcr.io too, by what is pushed below docker.io/ and
    ghcr.io/ in it, and has a busybox to build on, so no other registry is needed. `make up` takes
    options as variables: make up registry_listen=127.0.0.1:5001

    BuildKit, the registry and nats-server are compiled first, unless they are installed.
    """
    stack = Stack(
        listen=listen,
        metrics_listen=metrics_listen,
        registry_listen=registry_listen,
        state=state_dir.absolute(),
        example=example.absolute(),
    )
    with errors_in_a_line():
        require_tools(_NEEDED if os.geteuid() == 0 else _NEEDED + _NEEDED_ROOTLESS)
        install_missing(_say)
    run_until_signal(_up(stack))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What `up` runs.

    Attributes:
        listen: the builder's `host:port`.
        metrics_listen: its metrics'.
        registry_listen: the registry's.
        state: the directory of all that is kept.
        example: the directory that is built first.
    """

    listen: str
    metrics_listen: str
    registry_listen: str
    state: Path
    example: Path

    @property
    def secret_file(self) -> Path:
        """What requests are signed with."""
        return self.state / "payload-secret"

    @property
    def secrets_key_file(self) -> Path:
        """The private key that opens build secrets; the public one has .pub after it."""
        return self.state / "build-secrets.key"

    @property
    def image(self) -> str:
        """What the example becomes."""
        return f"{self.registry}/{self.example.name}:latest"

    @property
    def url(self) -> str:
        """Where this machine reaches the builder."""
        return f"http://{HostPort.parse(self.listen).local}"

    @property
    def registry(self) -> str:
        """The registry's `host:port` in the names of images."""
        return str(HostPort.parse(self.registry_listen).local)


async def _up(stack: Stack) -> None:
    with _only_one_in(stack.state), (stack.state / "builder.log").open("w", buffering=1) as log:
        life = Life(stack.url, _say)
        configure_logging(json=False, file=log, observe=life)
        warn_of_near_misses(os.environ, ("state_dir", "registry_listen"))
        _make_secret(stack.secret_file)
        _make_webhook_secret(stack.state / "webhook-secret")
        _make_key(stack.secrets_key_file)
        _check_addresses(stack)
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
    _say(f"\nimage  {result.image}@{result.digest}\n\nSee the builds:\n\n{page}\n{_lesson(stack)}")
    life.begin()


def _lesson(stack: Stack) -> str:
    """How to build another by our command, then with tar, Python and curl, then with a secret."""
    command = _command()
    example, secret = shlex.quote(str(stack.example)), shlex.quote(str(stack.secret_file))
    key, state = shlex.quote(str(stack.secrets_key_file)), shlex.quote(str(stack.state))
    return f"""
Build your own, from another terminal:

  {command} build {example} --image {stack.registry}/own:latest \\
    --url {stack.url} --payload-secret {secret}

The same without our command:

  mkdir -p request/context && cp -r {example}/. request/context
  echo '{{"image":"{stack.registry}/mine:latest"}}' > request/com.openfaas.docker.config
  tar -C request -cf request.tar com.openfaas.docker.config context
  hmac=$(python3 -c 'import hmac, sys; key, body = [open(f, "rb").read() for f in sys.argv[1:]]; \
print(hmac.new(key.strip(), body, "sha256").hexdigest())' {secret} request.tar)
  curl -N {stack.url}/build -H "X-Build-Signature: sha256=$hmac" \\
    -H "Accept: application/x-ndjson" --data-binary @request.tar

The same with a build secret, sealed so that only this builder can open it:

  echo 'RUN --mount=type=secret,id=token,mode=0444 wc -c /run/secrets/token' \\
    >> request/context/Dockerfile
  {command} secret seal {key}.pub --from-literal token=s3cr3t -o request/sealed
  {command} build request/context --image {stack.registry_listen}/mine:sealed \\
    --secrets request/sealed --url {stack.url} --payload-secret {secret}

Builds are shown here as they come. Ctrl-C ends it all; {state} keeps caches, images and logs.
"""


def _command() -> str:
    """The program as another terminal finds it: there PATH has no virtual environment of ours."""
    program = Path(sys.executable).parent / "function-builder"
    return shlex.quote(str(program)) if program.exists() else "function-builder"


@contextlib.contextmanager
def _only_one_in(state: Path) -> Iterator[None]:
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (state / "lock").open("w")
    except OSError as error:
        raise EngineError(
            f"{state} cannot be used: {error.strerror}: --state-dir (make up state_dir=DIR) names"
            " another"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError(
                f"another `up` runs in {state}: --state-dir (make up state_dir=DIR) names another"
            ) from None
        yield


def _make_secret(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        _write_private(path, secrets.token_urlsafe(32).encode())


def _make_webhook_secret(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        _write_private(path, format_secret(secrets.token_bytes(32)).encode())


def _make_key(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        key = SecretsKey.generate()
        _write_private(path, key.to_text())
        path.with_name(f"{path.name}.pub").write_text(key.public)


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _check_addresses(stack: Stack) -> None:
    for option in ("registry_listen", "listen", "metrics_listen"):
        address = getattr(stack, option)
        flag = f"--{option.replace('_', '-')}"
        try:
            ensure_free(address)
        except ValueError as error:
            raise EngineError(f"{flag}={address}: {error}") from None
        except EngineError as error:
            raise EngineError(
                f"{error}: {flag} (make up {option}=HOST:PORT) names another"
            ) from None


def _say(text: str) -> None:
    typer.echo(text)
