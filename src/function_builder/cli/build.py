"""The command ``function-builder build``: a client of any builder."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from ssl import SSLContext
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from function_builder.cli.options import (
    AnnotationsOption,
    CacheFromOption,
    CacheToOption,
    ContextsOption,
    DockerfileOption,
    HostsOption,
    LabelsOption,
    MediaTypesOption,
    NoCacheFilterOption,
    NoCacheOption,
    ProvenanceOption,
    PullOption,
    RewriteOption,
    SbomOption,
    ShmOption,
    TagsOption,
    TargetOption,
    UlimitsOption,
    contexts,
    dockerfile_in,
    pairs,
)
from function_builder.cli.options import shm_size as size_of
from function_builder.cli.steps import printable
from function_builder.cli.view import View, choose_view
from function_builder.client import (
    DEFAULT_URL,
    AsyncClient,
    Attest,
    BuildConfig,
    BuildOptions,
    BuildResult,
    BuildStatus,
    ClientError,
    ContextError,
    Refused,
    Unreachable,
    tls_context,
)
from function_builder.client.options import build_config
from function_builder.contract.config import parse_config
from function_builder.contract.errors import Refusal

FAILED: Final = 1
USAGE: Final = 2
NOT_STARTED: Final = 3
INTERRUPTED: Final = 130

_LOCAL_SECRET: Final = Path(".run/payload-secret")


def build(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="The build context: a directory with a Dockerfile.",
            exists=True,
            file_okay=False,
        ),
    ],
    *,
    image: Annotated[
        str,
        typer.Option("--image", "-t", metavar="REF", help="The image to push: registry/name:tag."),
    ] = "",
    build_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A build argument of the Dockerfile; may be repeated. KEY alone takes its value "
            "from the environment.",
        ),
    ] = None,
    platform: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OS/ARCH",
            help="A platform to build for, such as linux/arm64; may be repeated, for one image "
            "that serves all of them. Without it: the builder's own.",
        ),
    ] = None,
    url: Annotated[
        str,
        typer.Option(metavar="URL", envvar="OPENFAAS_REMOTE_BUILDER", help="The builder."),
    ] = DEFAULT_URL,
    payload_secret: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="OPENFAAS_PAYLOAD_SECRET",
            help=f"Holds the secret that signs requests. Without it: {_LOCAL_SECRET}, if there.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Sealed build secrets for the Dockerfile's RUN --mount=type=secret, as "
            "`function-builder secret seal` writes them.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    stream: Annotated[
        bool, typer.Option(help="Follow the build as it runs, or wait for one whole answer.")
    ] = True,
    skip_push: Annotated[
        bool, typer.Option("--skip-push", help="Build only; --image may be left out then.")
    ] = False,
    file: DockerfileOption = None,
    target: TargetOption = "",
    tag: TagsOption = None,
    label: LabelsOption = None,
    annotation: AnnotationsOption = None,
    no_cache: NoCacheOption = False,
    no_cache_filter: NoCacheFilterOption = None,
    pull: PullOption = False,
    build_context: ContextsOption = None,
    add_host: HostsOption = None,
    shm_size: ShmOption = "",
    ulimit: UlimitsOption = None,
    cache_from: CacheFromOption = None,
    cache_to: CacheToOption = None,
    provenance: ProvenanceOption = "",
    sbom: SbomOption = False,
    oci_mediatypes: MediaTypesOption = None,
    rewrite_timestamp: RewriteOption = False,
    cacert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The authorities to trust for https, in PEM. Without it: the system's, or those "
            "that SSL_CERT_FILE names.",
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A client certificate for https, in PEM."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its private key, if --cert does not hold it too."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:VALUE",
            help="A header for a proxy before the builder; may be repeated. @FILE reads a line for "
            "each header, so that a secret one is not in the list of processes.",
        ),
    ] = None,
    builder_public_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The builder's public key: secrets that were sealed for another one are not "
            "sent. Without it the builder is asked, where its answer is signed.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    signed_answers: Annotated[
        bool | None,
        typer.Option(
            "--require-signed-answers/--allow-unsigned-answers",
            help="Whether an image is believed only if the payload secret signed the answer. "
            "pro-builder signs none. Without it: required with a payload secret, unless the URL "
            "is https.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="How long to wait for a busy builder."),
    ] = 300,
) -> None:
    """Build a directory into an image on a builder, and push it.

    All of the directory is sent but what its .dockerignore leaves out. A terminal shows the steps
    as they run; pipes, CI and NO_COLOR get plain lines. All of that goes to standard error:
    standard output has the image with its digest, and nothing else.

    \b
    With the builder that `function-builder up` or `make up` started:
      function-builder build hello/ --image 127.0.0.1:5000/hello:1
    With a builder elsewhere, for two platforms:
      function-builder build . --image ghcr.io/me/fn:1 \\
        --url https://builder.example.com --payload-secret secret.txt \\
        --platform linux/amd64 --platform linux/arm64
    In a script, with a value for the Dockerfile's ARG VERSION:
      image=$(function-builder build . --image ttl.sh/fn:1h --build-arg VERSION=1.2)

    \b
    Exit codes:
      0    the image is built, and pushed unless --skip-push was given
      1    the build failed, or its end is unknown
      2    the command or the directory is wrong; nothing was sent
      3    no build was begun: the builder refused, stayed busy or gave no answer
      130  interrupted; the builder stops the build
    """  # noqa: D301 - what follows a backspace keeps its lines in --help
    console = Console(stderr=True, highlight=False)
    named = contexts(build_context)
    options = BuildOptions(
        image=image,
        build_args=dict(map(_build_arg, build_arg or ())),
        platforms=platform or (),
        skip_push=skip_push,
        target=target,
        dockerfile=dockerfile_in(directory, file),
        tags=tag or (),
        labels=pairs(label, "--label"),
        annotations=pairs(annotation, "--annotation"),
        no_cache=no_cache or no_cache_filter or False,
        pull=pull,
        oci_media_types=oci_mediatypes,
        rewrite_timestamp=rewrite_timestamp,
        add_hosts=add_host or (),
        shm_size=size_of(shm_size),
        ulimits=ulimit or (),
        cache_from=cache_from or (),
        cache_to=cache_to or (),
        contexts=named,
        attest=Attest({"true": "min", "false": ""}.get(provenance, provenance), sbom),
    )
    config = _config(options)
    secret = _secret(payload_secret)
    sealed = _read(secrets, "--secrets") if secrets else None
    view = choose_view(console, f"Building {config.image or directory}")
    client = _client(
        view,
        url,
        payload_secret=secret,
        headers=_headers(header or ()),
        ssl_context=_ssl_context(cacert, cert, key),
        retry_timeout=wait,
        require_signed_answers=signed_answers,
        builder_public_key=(
            _read(builder_public_key, "--builder-public-key") if builder_public_key else None
        ),
    )
    try:
        result = asyncio.run(
            _build(client, view, directory, config, named, secrets=sealed, stream=stream)
        )
    except KeyboardInterrupt:
        _say(console, "interrupted; the builder stops the build")
        raise typer.Exit(INTERRUPTED) from None
    except ClientError as error:
        _say(console, printable(f"{error}{_advice(error, url, signed=secret is not None)}"))
        raise typer.Exit(USAGE if isinstance(error, ContextError) else NOT_STARTED) from None
    if result.status is not BuildStatus.SUCCESS:
        raise typer.Exit(FAILED)
    # One word, whatever answered in a builder's place: a script takes it.
    image = "@".join(part for part in (result.image, result.digest) if part)
    typer.echo("".join(printable(image).split()))


def _client(view: View, url: str, **settings: Any) -> AsyncClient:
    def on_retry(refused: Refused, seconds: float) -> None:
        view.note(f"{refused}; trying again in {seconds:.0f} s")

    try:
        return AsyncClient(url, on_retry=on_retry, **settings)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _ssl_context(cacert: Path | None, cert: Path | None, key: Path | None) -> SSLContext | None:
    if cacert is cert is key is None:
        return None
    try:
        return tls_context(cacert=cacert, cert=cert, key=key)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--cacert, --cert, --key") from error


def _headers(texts: Sequence[str]) -> dict[str, str]:
    lines: list[str] = []
    for text in texts:
        if text.startswith("@"):
            content = _read(Path(text[1:]), "--header").decode("latin-1")
            lines += filter(str.strip, content.splitlines())
        else:
            lines.append(text)
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            # Not the text: it may hold a password.
            raise typer.BadParameter("write NAME:VALUE, or @FILE", param_hint="--header")
        headers[name.strip()] = value.strip()
    return headers


async def _build(
    client: AsyncClient,
    view: View,
    directory: Path,
    config: BuildConfig,
    named: Mapping[str, str | Path],
    *,
    secrets: bytes | None,
    stream: bool,
) -> BuildResult:
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
    """What the options say, held to what a builder will say of it."""
    if not options["image"] and not options["skip_push"]:
        raise typer.BadParameter(
            "name the image to push, or give --skip-push", param_hint="--image"
        )
    try:
        return parse_config(build_config(None, options)[0].to_json())
    except Refusal as refusal:
        raise typer.BadParameter(refusal.reason) from refusal


def _build_arg(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        if name not in os.environ:
            raise typer.BadParameter(
                f"{name} is not in the environment: write {name}=VALUE", param_hint="--build-arg"
            )
        value = os.environ[name]
    return name, value


def _secret(file: Path | None) -> bytes | None:
    if file is None and not _LOCAL_SECRET.is_file():
        return None
    file = file or _LOCAL_SECRET
    secret = _read(file, "--payload-secret").strip()
    if not secret:
        raise typer.BadParameter(f"{file} is empty", param_hint="--payload-secret")
    return secret


def _read(file: Path, option: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(
            f"cannot read {file}: {error.strerror}", param_hint=option
        ) from error


def _advice(error: ClientError, url: str, *, signed: bool) -> str:
    """What to do about it, where that is not in the error itself."""
    if isinstance(error, Unreachable) and url == DEFAULT_URL:
        return "; `function-builder up` starts a builder here, --url names another"
    if isinstance(error, Refused) and not error.from_builder:
        return ""
    if isinstance(error, Refused) and error.status == HTTPStatus.UNAUTHORIZED:
        if signed:
            return "; is the payload secret the one that this builder has?"
        return "; sign with the builder's secret: --payload-secret FILE"
    if isinstance(error, Refused) and error.status == HTTPStatus.TOO_MANY_REQUESTS:
        return "; try later, or wait longer with --wait"
    return ""


def _say(console: Console, text: str) -> None:
    console.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)
