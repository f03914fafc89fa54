"""The options of `build` that docker buildx has under the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from function_builder.cli.given import Progress

_Texts: TypeAlias = list[str] | None


ProgressOption = Annotated[
    Progress,
    typer.Option(
        help="How the build is shown, on standard error: tty (steps redrawn in place), plain "
        "lines, json (one object per line) or quiet (only the error of a failed build). "
        "auto: tty on a terminal, else plain."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="The same as --progress quiet.")]
DockerfileOption = Annotated[
    Path | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="The Dockerfile, which must be in DIR. Without it: DIR/Dockerfile.",
    ),
]
TargetOption = Annotated[
    str, typer.Option("--target", metavar="STAGE", help="The stage to build, by its name.")
]
TagsOption = Annotated[
    _Texts, typer.Option("--tag", metavar="REF", help="Another reference to push; repeatable.")
]
LabelsOption = Annotated[
    _Texts, typer.Option("--label", metavar="KEY=VALUE", help="A label of the image; repeatable.")
]
AnnotationsOption = Annotated[
    _Texts,
    typer.Option(
        "--annotation",
        metavar="[TYPE:]KEY=VALUE",
        help="An annotation of the manifest, or of index:, manifest[linux/arm64]: …; repeatable.",
    ),
]
NoCacheOption = Annotated[bool, typer.Option("--no-cache", help="Run every step again.")]
NoCacheFilterOption = Annotated[
    _Texts,
    typer.Option(
        "--no-cache-filter", metavar="STAGE", help="Run every step of a stage again; repeatable."
    ),
]
PullOption = Annotated[
    bool, typer.Option("--pull", help="Check the registry for newer base images.")
]
ContextsOption = Annotated[
    _Texts,
    typer.Option(
        "--build-context",
        metavar="NAME=DIR",
        help="A named context: a directory, or docker-image://REF if the builder allows it; "
        "repeatable.",
    ),
]
HostsOption = Annotated[
    _Texts,
    typer.Option("--add-host", metavar="HOST:IP", help="A host name for RUN steps; repeatable."),
]
ShmOption = Annotated[
    str,
    typer.Option("--shm-size", metavar="SIZE", help="Size of /dev/shm in RUN steps, such as 128m."),
]
UlimitsOption = Annotated[
    _Texts,
    typer.Option("--ulimit", metavar="NAME=SOFT:HARD", help="A limit for RUN steps; repeatable."),
]
CacheFromOption = Annotated[
    _Texts,
    typer.Option(
        "--cache-from",
        metavar="REF",
        help="A cache in a registry to read, if the builder allows it; repeatable.",
    ),
]
CacheToOption = Annotated[
    _Texts,
    typer.Option(
        "--cache-to",
        metavar="REF",
        help="A cache in a registry to write, such as type=registry,ref=REF,mode=max; repeatable.",
    ),
]
ProvenanceOption = Annotated[
    str,
    typer.Option(
        "--provenance",
        metavar="LEVEL",
        help="Attest how the image was built: min, or max, which includes build arguments.",
    ),
]
SbomOption = Annotated[
    bool, typer.Option("--sbom", help="Attest what the image contains, if the builder can.")
]
MediaTypesOption = Annotated[
    bool | None,
    typer.Option(
        "--oci-mediatypes/--docker-mediatypes",
        help="The image's media types. Without either: BuildKit's default.",
        show_default=False,
    ),
]
CompressionOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Of the layers: gzip, zstd, estargz, uncompressed. Without it: the builder's default.",
    ),
]
CompressionLevelOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="0 to 9 for gzip and estargz, 0 to 22 for zstd.", show_default=False
    ),
]
RewriteOption = Annotated[
    bool,
    typer.Option(
        "--rewrite-timestamp",
        help="Set all later times of files to the build argument SOURCE_DATE_EPOCH.",
    ),
]
