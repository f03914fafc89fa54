"""A request's configuration: the tar's entry `com.openfaas.docker.config`.

JSON as Go's encoding/json reads it, because every client was tested against that: keys match in any
case, the last of equal keys wins, null means absent, unknown keys are ignored. Their names are
kept, so that the build's log can tell the client of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final

from function_builder.contract.errors import Refusal, shown
from function_builder.contract.references import normalise_reference, split_reference
from function_builder.contract.text import load_json

CONFIG_NAME: Final = "com.openfaas.docker.config"
"""The entry's name in the tar."""

MAX_CONFIG_BYTES: Final = 1 << 20
"""A configuration is a few hundred bytes; build arguments beyond this are no arguments."""

_PLATFORM = re.compile(r"[a-z0-9_.-]+(?:/[a-z0-9_.-]+){0,2}")
_MAX_PLATFORMS = 20
_MAX_KEY = 40
_MAX_NOTES = 10
"""Unknown keys that are named: a document of a megabyte can hold 100,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildConfig:
    """What to build and where to push it.

    Attributes:
        image: the reference to push, its repository in lower case; empty only with `skip_push`.
        build_args: the Dockerfile's build arguments.
        platforms: as `os/arch[/variant]`; empty means the builder's own.
        skip_push: build, and keep the image from the registry.
        notes: what the client should know of its configuration, a line each: keys that no builder
            knows. Not part of the document.
    """

    image: str = ""
    build_args: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    platforms: tuple[str, ...] = ()
    skip_push: bool = False
    notes: Sequence[str] = field(default=(), compare=False)

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
    document = _load(data)
    values = {key.lower(): value for key, value in document.items if value is not None}
    fields: dict[str, Any] = {}
    for key in _KEYS:
        if (value := values.get(key.name.lower())) is not None:
            fields[key.field] = key.read(key.name, value) or fields.get(key.field)
    image = fields.get("image")
    if image:
        fields["image"] = normalise_reference(image)
    elif not fields.get("skip_push"):
        raise Refusal(400, f"{CONFIG_NAME}: image is missing: name the image to push")
    given = {name: value for name, value in fields.items() if value is not None}
    return BuildConfig(**given, notes=_notes(key for key, _ in document.items))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """A JSON object; the last of equal keys wins, where case does not count."""

    items: list[tuple[str, object]]


def _load(data: bytes) -> _Pairs:
    if len(data) > MAX_CONFIG_BYTES:
        raise Refusal(400, f"{CONFIG_NAME}: larger than {MAX_CONFIG_BYTES} bytes")
    try:
        document = load_json(data, _Pairs)
    except ValueError as error:
        raise Refusal(400, f"{CONFIG_NAME}: {error}") from error
    if not isinstance(document, _Pairs):
        raise Refusal(400, f"{CONFIG_NAME}: must be a JSON object")
    return document


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise Refusal(400, f"{CONFIG_NAME}: {name} must be a string")
    return value.strip()


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise Refusal(400, f"{CONFIG_NAME}: {name} must be true or false")
    return value


def _build_args(name: str, value: object) -> Mapping[str, str]:
    """Build arguments; one that is null is absent, so that the Dockerfile's default counts."""
    if not isinstance(value, _Pairs):
        raise Refusal(400, f"{CONFIG_NAME}: {name} must be an object of strings")
    args: dict[str, str] = {}
    for arg, text in value.items:
        if text is None:
            args.pop(arg, None)
            continue
        if not isinstance(text, str):
            raise Refusal(400, f"{CONFIG_NAME}: build argument {shown(arg)} must be a string")
        if not arg or not _is_plain(arg) or not _is_plain(text):
            raise Refusal(
                400,
                f"{CONFIG_NAME}: build argument {shown(arg)}: the name is empty, "
                "or name or value holds NUL or half a surrogate pair",
            )
        args[arg] = text
    return MappingProxyType(args)


def _platforms(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal(400, f"{CONFIG_NAME}: {name} must be a list of strings")
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


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the document.

    Attributes:
        name: as the API's page writes it.
        field: of BuildConfig, which the value becomes; a later key of the table replaces it.
        read: checks and converts a value that is not null, given the name for its refusals.
    """

    name: str
    field: str
    read: Callable[[str, object], object]


_KEYS: Final = (
    _Key("ref", "image", _text),
    _Key("image", "image", _text),
    _Key("buildArgs", "build_args", _build_args),
    _Key("platforms", "platforms", _platforms),
    _Key("skipPush", "skip_push", _flag),
)
_SILENT: Final = frozenset({"frontend"})
"""Keys that old clients always send: they have no effect, and are not worth a note."""

_OTHER_NAMES: Final = {"args": "buildArgs", "tag": "image", "name": "image", "push": "skipPush"}
"""Names for a key that are not spelled like it."""


def _notes(keys: Iterable[str]) -> list[str]:
    """Say which keys are ignored because they are unknown, each with the key that may be meant."""
    names = {_folded(key.name): key.name for key in _KEYS}
    known = {key.name.lower() for key in _KEYS} | _SILENT
    unknown = [key for key in dict.fromkeys(keys) if key.lower() not in known]
    notes = []
    for key in unknown[:_MAX_NOTES]:
        folded = _folded(key[:_MAX_KEY])
        near = [names[name] for name in get_close_matches(folded, names, 1)]
        near = [_OTHER_NAMES[folded]] if folded in _OTHER_NAMES else near
        meant = f" Did you mean {near[0]}?" if near else ""
        notes.append(f"WARNING: {CONFIG_NAME}: the key {shown(key)} is unknown and ignored.{meant}")
    if more := len(unknown) - len(notes):
        notes.append(f"WARNING: {CONFIG_NAME}: {more} more keys are unknown and ignored.")
    return notes


def _folded(key: str) -> str:
    """A key without case and separators: `build_args` and `build-args` are `buildargs`."""
    return re.sub("[^a-z]", "", key.lower())
