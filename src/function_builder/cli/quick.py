"""The command lines of `build` that need no option parser, which most are.

Typer takes longer to load than a build of an unchanged directory takes. So a line that has only
known options, each with its value, is read here. Any other one is left to Typer, which also says
what is wrong with it, and how the command is used. A test compares both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from function_builder.cli.exit_codes import INTERRUPTED
from function_builder.cli.given import Given, Mistake, Progress


def _existing_file(text: str) -> Path:
    if not os.path.isfile(text):  # noqa: PTH113 (Path.is_file raises where it may not look)
        raise ValueError(text)
    return Path(text)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds >= 0:
        raise ValueError(text)
    return seconds


FLAGS: Final[Mapping[str, tuple[str, bool]]] = {
    "--stream": ("stream", True),
    "--no-stream": ("stream", False),
    "--detach": ("detach", True),
    "-d": ("detach", True),
    "--skip-push": ("skip_push", True),
    "--full": ("full", True),
    "--quiet": ("quiet", True),
    "-q": ("quiet", True),
    "--no-cache": ("no_cache", True),
    "--pull": ("pull", True),
    "--sbom": ("sbom", True),
    "--oci-mediatypes": ("oci_mediatypes", True),
    "--docker-mediatypes": ("oci_mediatypes", False),
    "--rewrite-timestamp": ("rewrite_timestamp", True),
    "--require-signed-answers": ("signed_answers", True),
    "--allow-unsigned-answers": ("signed_answers", False),
}
"""The options without a value: their parameters, and what they set."""

VALUES: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "--image": ("image", str),
    "-t": ("image", str),
    "--url": ("url", str),
    "--payload-secret": ("payload_secret", _existing_file),
    "--secrets": ("secrets", _existing_file),
    "--progress": ("progress", Progress),
    "--file": ("file", Path),
    "-f": ("file", Path),
    "--target": ("target", str),
    "--shm-size": ("shm_size", str),
    "--provenance": ("provenance", str),
    "--compression": ("compression", str),
    "--compression-level": ("compression_level", int),
    "--cacert": ("cacert", Path),
    "--cert": ("cert", Path),
    "--key": ("key", Path),
    "--builder-public-key": ("builder_public_key", _existing_file),
    "--wait": ("wait", _seconds),
}
"""The options with one value: their parameters, and what reads them."""

LISTS: Final[Mapping[str, str]] = {
    "--build-arg": "build_arg",
    "--platform": "platform",
    "--tag": "tag",
    "--label": "label",
    "--annotation": "annotation",
    "--no-cache-filter": "no_cache_filter",
    "--build-context": "build_context",
    "--add-host": "add_host",
    "--ulimit": "ulimit",
    "--cache-from": "cache_from",
    "--cache-to": "cache_to",
    "--header": "header",
}
"""The options that may be repeated."""

VARIABLES: Final[Mapping[str, str]] = {
    "OPENFAAS_REMOTE_BUILDER": "--url",
    "OPENFAAS_PAYLOAD_SECRET": "--payload-secret",
}
"""The environment's variables that stand for options."""


class _NotQuick(Exception):
    """The line is for Typer."""


def build(words: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
    """Build as the words after `build` say, and exit; return if Typer has to read them."""
    try:
        directory, given = read(words, environment)
    except (_NotQuick, ValueError):
        return
    # Not at the top: a line that is for Typer may need no client.
    from function_builder.cli import building

    try:
        building.build(directory, given)
    except Mistake:
        return
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit()


def read(words: Sequence[str], environment: Mapping[str, str]) -> tuple[Path, Given]:
    """The directory, and the options that were given.

    Raises:
        ValueError: a value is not of its kind.
        _NotQuick: it is another kind of line.
    """
    given: dict[str, Any] = {}
    for variable, option in VARIABLES.items():
        if value := environment.get(variable):
            _set(given, option, value)
    directories = []
    left = iter(words)
    for word in left:
        if not word.startswith("-"):
            directories.append(word)
        elif word in FLAGS:
            name, meaning = FLAGS[word]
            given[name] = meaning
        else:
            _set(given, *_option(word, left))
    if len(directories) != 1 or not os.path.isdir(directories[0]):  # noqa: PTH112 (as isfile)
        raise _NotQuick
    return Path(directories[0]), cast("Given", given)


def _option(word: str, left: Iterator[str]) -> tuple[str, str]:
    """An option and its value, which may be the next word."""
    name, equals, value = word.partition("=")
    if equals and name.startswith("--"):
        return name, value
    following = next(left, None)
    if following is None:
        raise _NotQuick
    return word, following


def _set(given: dict[str, Any], option: str, value: str) -> None:
    if option in LISTS:
        given.setdefault(LISTS[option], []).append(value)
    elif option in VALUES:
        name, read_value = VALUES[option]
        given[name] = read_value(value)
    else:
        raise _NotQuick
