"""What the options of `build` were given, and what is wrong with it; without the option parser."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, TypedDict

DEFAULT_URL: Final = "http://127.0.0.1:8080"
"""The client's own default. It is repeated here because `--help` must not load the client."""

LOCAL_SECRET: Final = Path(".run/payload-secret")
"""Where `up` keeps the payload secret."""


DEFAULT_WAIT_SECONDS: Final = 300.0


class Mistake(Exception):
    """An option is wrong; nothing was sent.

    Attributes:
        option: its name; empty if it is not known.
    """

    def __init__(self, text: str, option: str = "") -> None:
        super().__init__(text)
        self.option = option


class Progress(StrEnum):
    """The values of `--progress`, as `docker buildx build` has them."""

    AUTO = "auto"
    """`tty` on a terminal, `plain` everywhere else."""
    PLAIN = "plain"
    TTY = "tty"
    QUIET = "quiet"
    JSON = "json"


class BuilderOptions(NamedTuple):
    """The values of these options."""

    url: str
    payload_secret: Path | None
    headers: Sequence[str]
    cacert: Path | None
    cert: Path | None
    key: Path | None
    signed_answers: bool | None
    wait: float
    public_key: Path | None = None
    full: bool = False


class Given(TypedDict, total=False):
    """The options of `build`, by the names of its parameters; one that is absent was not given."""

    image: str
    build_arg: Sequence[str] | None
    platform: Sequence[str] | None
    url: str
    payload_secret: Path | None
    secrets: Path | None
    stream: bool
    detach: bool
    skip_push: bool
    full: bool
    progress: Progress
    quiet: bool
    file: Path | None
    target: str
    tag: Sequence[str] | None
    label: Sequence[str] | None
    annotation: Sequence[str] | None
    no_cache: bool
    no_cache_filter: Sequence[str] | None
    pull: bool
    build_context: Sequence[str] | None
    add_host: Sequence[str] | None
    shm_size: str
    ulimit: Sequence[str] | None
    cache_from: Sequence[str] | None
    cache_to: Sequence[str] | None
    provenance: str
    sbom: bool
    oci_mediatypes: bool | None
    compression: str
    compression_level: int | None
    rewrite_timestamp: bool
    cacert: Path | None
    cert: Path | None
    key: Path | None
    header: Sequence[str] | None
    builder_public_key: Path | None
    signed_answers: bool | None
    wait: float


def dockerfile_in(directory: Path, file: Path | None) -> str:
    """The Dockerfile's path in the context; like docker, relative to here or to the context."""
    if file is None:
        return ""
    for candidate in (file, directory / file):
        path = os.path.relpath(candidate, directory)
        if candidate.is_file() and not path.startswith(".."):
            return Path(path).as_posix()
    raise Mistake(f"{file} is not a file in {directory}", "--file")


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """The values of an option of the form KEY=VALUE; VALUE may be left out."""
    found = {}
    for text in texts or ():
        key, _, value = text.partition("=")
        if not key:
            raise Mistake("write KEY=VALUE", option)
        found[key] = value
    return found


def contexts(texts: Sequence[str] | None) -> dict[str, str | Path]:
    """Named contexts: the builder checks a value with a scheme; any other is a directory."""
    return {
        name: source if "://" in source else Path(source)
        for name, source in pairs(texts, "--build-context").items()
    }
