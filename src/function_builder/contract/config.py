"""A request's configuration: the tar's entry `com.openfaas.docker.config`.

JSON as Go's encoding/json reads it, because that is what every client was tried against:
keys match in any case, the last of equal keys wins, null means absent, unknown keys are ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NoReturn

from function_builder.contract.errors import Refusal, shown

CONFIG_NAME: Final = "com.openfaas.docker.config"
"""The entry's name in the tar."""

MAX_CONFIG_BYTES: Final = 1 << 20
"""A configuration is a few hundred bytes; build arguments beyond this are no arguments."""

# The grammar of github.com/distribution/reference, in the parts that a push can use.
_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"(?:{_DOMAIN}/)?{_PATH_PART}(?:/{_PATH_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PLATFORM = re.compile(r"[a-z0-9_.-]+(?:/[a-z0-9_.-]+){0,2}")
_MAX_REPOSITORY = 255
_MAX_PLATFORMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildConfig:
    """What to build and where to push it.

    Attributes:
        image: the reference to push, its repository in lower case; empty only with `skip_push`.
        build_args: the Dockerfile's build arguments.
        platforms: as `os/arch[/variant]`; empty means the builder's own.
        skip_push: build, and keep the image from the registry.
    """

    image: str = ""
    build_args: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    platforms: tuple[str, ...] = ()
    skip_push: bool = False

    @property
    def repository(self) -> str:
        """The image without its tag; empty without an image."""
        return split_reference(self.image)[0]

    def to_json(self) -> bytes:
        """The entry's bytes, as a client writes them."""
        document: dict[str, object] = {"buildArgs": dict(self.build_args)}
        if self.image:
            document["image"] = self.image
        if self.platforms:
            document["platforms"] = list(self.platforms)
        if self.skip_push:
            document["skipPush"] = True
        return json.dumps(document).encode()


def parse_config(data: bytes) -> BuildConfig:
    """Read the entry's bytes.

    Raises:
        Refusal: 400, saying which key is wrong and what it should be.
    """
    keys = _load(data)
    image = _text(keys, "image") or _text(keys, "ref")
    skip_push = keys.get("skippush", False)
    if not isinstance(skip_push, bool):
        raise Refusal(400, f"{CONFIG_NAME}: skipPush must be true or false")
    if not image and not skip_push:
        raise Refusal(400, f"{CONFIG_NAME}: image is missing: name the image to push")
    return BuildConfig(
        image=normalise_reference(image) if image else "",
        build_args=_build_args(keys.get("buildargs", _Pairs([]))),
        platforms=_platforms(keys.get("platforms", [])),
        skip_push=skip_push,
    )


def split_reference(reference: str) -> tuple[str, str]:
    """Split a reference at its tag: `("host:5000/name", "tag")`; no tag: an empty one."""
    head, colon, tail = reference.rpartition(":")
    if not colon or "/" in tail:
        return reference, ""
    return head, tail


def normalise_reference(reference: str) -> str:
    """Lower-case the repository, keep the tag, and hold the whole to the reference grammar.

    Source: github.com/distribution/reference. A digest is refused: nothing can be pushed to one.

    Raises:
        Refusal: 400.
    """
    name = shown(reference)
    if "," in reference:
        raise Refusal(400, f"image {name}: one image is built by a request, so no comma")
    if "@" in reference:
        raise Refusal(400, f"image {name}: a digest cannot be pushed to: name a tag instead")
    repository, tag = split_reference(reference)
    repository = repository.lower()
    # Its length first: a megabyte holds up the expression, and that all else, for a second. Some
    # letters outside of ASCII only look so in lower case: the Kelvin sign's is a k.
    valid = (
        reference.isascii()
        and len(repository) <= _MAX_REPOSITORY
        and _REPOSITORY.fullmatch(repository)
    )
    if not valid or (tag and not _TAG.fullmatch(tag)) or reference.endswith(":"):
        raise Refusal(400, f"image {name}: not a valid reference, such as host:5000/name:tag")
    return f"{repository}:{tag}" if tag else repository


def _load(data: bytes) -> dict[str, object]:
    if len(data) > MAX_CONFIG_BYTES:
        raise Refusal(400, f"{CONFIG_NAME}: larger than {MAX_CONFIG_BYTES} bytes")
    try:
        # A pairs hook keeps the order of keys that are equal but for their case: the last wins.
        document = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_pairs, parse_constant=_no_json
        )
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"{CONFIG_NAME}: not JSON") from error
    if not isinstance(document, _Pairs):
        raise Refusal(400, f"{CONFIG_NAME}: must be a JSON object")
    return {key.lower(): value for key, value in document.items if value is not None}


def _no_json(constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python alone takes for JSON."""
    raise ValueError(constant)


@dataclass(frozen=True, slots=True)
class _Pairs:
    items: list[tuple[str, object]]


def _pairs(items: list[tuple[str, object]]) -> _Pairs:
    return _Pairs(items)


def _text(keys: Mapping[str, object], name: str) -> str:
    value = keys.get(name, "")
    if not isinstance(value, str):
        raise Refusal(400, f"{CONFIG_NAME}: {name} must be a string")
    return value.strip()


def _build_args(value: object) -> Mapping[str, str]:
    if not isinstance(value, _Pairs):
        raise Refusal(400, f"{CONFIG_NAME}: buildArgs must be an object of strings")
    args: dict[str, str] = {}
    for name, text in value.items:
        if not isinstance(text, str | None):
            raise Refusal(400, f"{CONFIG_NAME}: build argument {shown(name)} must be a string")
        if not name or not _is_plain(name) or not _is_plain(text or ""):
            raise Refusal(
                400,
                f"{CONFIG_NAME}: build argument {shown(name)}: the name is empty, "
                "or name or value holds NUL or half a surrogate pair",
            )
        args[name] = text or ""
    return MappingProxyType(args)


def _platforms(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal(400, f"{CONFIG_NAME}: platforms must be a list of strings")
    platforms = tuple(dict.fromkeys(item.strip() for item in value if item.strip()))
    if len(platforms) > _MAX_PLATFORMS:
        raise Refusal(400, f"{CONFIG_NAME}: more than {_MAX_PLATFORMS} platforms")
    for platform in platforms:
        if not _PLATFORM.fullmatch(platform):
            raise Refusal(400, f"platform {shown(platform)}: must look like linux/amd64")
    return platforms


def _is_plain(text: str) -> bool:
    """Whether a process's environment and protobuf can hold the text."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
