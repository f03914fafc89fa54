"""The command `function-builder build`: a client of any builder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from function_builder.cli.builder_options import (
    BuilderKeyOption,
    CacertOption,
    CertOption,
    HeadersOption,
    KeyOption,
    PayloadSecretOption,
    SignedAnswersOption,
    UrlOption,
    WaitOption,
    usage_errors,
)
from function_builder.cli.given import DEFAULT_URL, DEFAULT_WAIT_SECONDS, Given, Progress
from function_builder.cli.options import (
    AnnotationsOption,
    CacheFromOption,
    CacheToOption,
    CompressionLevelOption,
    CompressionOption,
    ContextsOption,
    DockerfileOption,
    HostsOption,
    LabelsOption,
    MediaTypesOption,
    NoCacheFilterOption,
    NoCacheOption,
    ProgressOption,
    ProvenanceOption,
    PullOption,
    QuietOption,
    RewriteOption,
    SbomOption,
    ShmOption,
    TagsOption,
    TargetOption,
    UlimitsOption,
)


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
            "with all of them. Without it: BuildKit's own platform.",
        ),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    payload_secret: PayloadSecretOption = None,
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
        bool, typer.Option(help="Follow the build while it runs, or wait for the whole answer.")
    ] = True,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            "-d",
            help="Queue the build, print its id and exit. The builder needs a queue (nats_url).",
        ),
    ] = False,
    skip_push: Annotated[
        bool, typer.Option("--skip-push", help="Do not push the image; --image is then optional.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Send all files. Without it: only those that the builder's BuildKit does not have,"
            " if the builder understands that.",
        ),
    ] = False,
    progress: ProgressOption = Progress.AUTO,
    quiet: QuietOption = False,
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
    compression: CompressionOption = "",
    compression_level: CompressionLevelOption = None,
    rewrite_timestamp: RewriteOption = False,
    cacert: CacertOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    header: HeadersOption = None,
    builder_public_key: BuilderKeyOption = None,
    signed_answers: SignedAnswersOption = None,
    wait: WaitOption = DEFAULT_WAIT_SECONDS,
) -> None:
    """Build a directory into an image on a builder, and push it.

    All of the directory is sent, except the files that .dockerignore excludes. A terminal shows the
    steps while they run; pipes and CI get plain lines. This goes to standard error. Standard output
    has only the image with its digest.

    \b
    With the builder that `function-builder up` or `make up` started:
      function-builder build hello/ --image 127.0.0.1:5000/hello:1
    With a builder elsewhere, for two platforms:
      function-builder build . --image ghcr.io/me/fn:1 \\
        --url https://builder.example.com --payload-secret secret.txt \\
        --platform linux/amd64 --platform linux/arm64
    Without waiting for it:
      id=$(function-builder build . --image ttl.sh/fn:1h --detach)
      function-builder logs -f "$id"
    In a script, with a value for the Dockerfile's ARG VERSION:
      image=$(function-builder build . --image ttl.sh/fn:1h --build-arg VERSION=1.2)

    \b
    Exit codes:
      0    the image is built, and pushed unless --skip-push was given; with --detach: the build is
           queued
      1    the build failed, or its end is unknown
      2    the command or the directory is wrong; nothing was sent
      3    no build was started: the builder refused, stayed busy or did not answer
      130  interrupted; the builder stops the build
    """
    given = cast("Given", {name: value for name, value in locals().items() if name != "directory"})
    # Not at the top: `--help` needs no client.
    from function_builder.cli import building

    with usage_errors():
        building.build(directory, given)
