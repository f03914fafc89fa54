"""The keyword arguments of a build: the fields of a `BuildConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypedDict

from function_builder.contract.config import BuildConfig
from function_builder.contract.options import Attest


@dataclass(frozen=True, slots=True)
class File:
    """A file of `Files` with its mode, such as a script that a step runs.

    Attributes:
        content: what it holds, text as UTF-8.
        mode: its permissions: `0o755` is executable.
    """

    content: str | bytes
    mode: int = 0o644


Files: TypeAlias = Mapping[str, str | bytes | File]
"""A build context that lies in no directory: contents by name. A content alone has mode 0644."""


class BuildOptions(TypedDict, total=False):
    """The fields of a `BuildConfig`, which explains each."""

    image: str
    build_args: Mapping[str, str]
    platforms: Sequence[str]
    skip_push: bool
    target: str
    dockerfile: str
    tags: Sequence[str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    no_cache: bool | Sequence[str]
    pull: bool
    oci_media_types: bool | None
    compression: str
    compression_level: int | None
    rewrite_timestamp: bool
    add_hosts: Sequence[str]
    shm_size: int
    ulimits: Sequence[str]
    cache_from: Sequence[str]
    cache_to: Sequence[str]
    contexts: Mapping[str, str | Path]
    attest: Attest
    queue_timeout: float | None


def build_config(
    config: BuildConfig | None, options: BuildOptions
) -> tuple[BuildConfig, Mapping[str, Path]]:
    """Combine the arguments of a build.

    Returns:
        The config, and the directories of named contexts: the folder of the tar -> a directory.
        A named context is a directory if its value is a `Path`.

    Raises:
        TypeError: an option is not a field of `BuildConfig`.
    """
    given: dict[str, object] = {
        name: tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in options.items()
    }
    folders: dict[str, Path] = {}
    if "contexts" in options:
        contexts = dict(options["contexts"])
        for number, (name, source) in enumerate(contexts.items()):
            if isinstance(source, Path):
                folder = f"named-context-{number}"
                folders[folder] = source
                contexts[name] = folder
        given["contexts"] = contexts
    return dataclasses.replace(config or BuildConfig(), **given), folders  # type: ignore[arg-type]


def chosen_context(directory: str | Path | None, files: Files | None) -> Path | Files:
    """The one of two arguments that was given.

    Raises:
        TypeError: neither was given, or both were.
    """
    if (directory is None) == (files is None):
        raise TypeError("give a directory or files, one of both")
    return Path(directory) if directory is not None else files or {}
