"""What a build may be asked for in keywords: the fields of a `BuildConfig`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypedDict

from function_builder.contract.config import BuildConfig

Files: TypeAlias = Mapping[str, str | bytes]
"""A build context that lies in no directory: contents by name, text as UTF-8."""


class BuildOptions(TypedDict, total=False):
    """The fields of a `BuildConfig`, which says what each is."""

    image: str
    build_args: Mapping[str, str]
    platforms: Sequence[str]
    skip_push: bool


def build_config(config: BuildConfig | None, options: BuildOptions) -> BuildConfig:
    """Put together what to make of a context.

    Raises:
        TypeError: an option is not a field of `BuildConfig`.
    """
    given = {
        name: tuple(value) if name == "platforms" and isinstance(value, Sequence) else value
        for name, value in options.items()
    }
    return dataclasses.replace(config or BuildConfig(), **given)  # type: ignore[arg-type]


def chosen_context(directory: str | Path | None, files: Files | None) -> Path | Files:
    """The one of both that was given.

    Raises:
        TypeError: none was given, or both.
    """
    if (directory is None) == (files is None):
        raise TypeError("give a directory or files, one of both")
    return Path(directory) if directory is not None else files or {}
