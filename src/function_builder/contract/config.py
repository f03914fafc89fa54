"""A request's configuration: the tar's entry `com.openfaas.docker.config`.

It is read like Go's encoding/json, because every client was tested with that: keys are
case-insensitive, null means absent, and unknown keys are ignored. The build's log names unknown
keys. A key with two different values is refused, because readers disagree which one is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from function_builder.contract import options
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.image_format import ImageFormat, compression, compression_level
from function_builder.contract.names import CONFIG_NAME
from function_builder.contract.options import Attest
from function_builder.contract.references import normalise_reference, split_reference
from function_builder.contract.text import load_json
from function_builder.contract.values import Pairs, flag, is_plain, text, texts, wrong

MAX_CONFIG_BYTES: Final = 1 << 20
"""The largest configuration, in bytes. Usual ones have a few hundred."""

ATTEST_ARG: Final = "BUILDKIT_ATTEST_"
"""The prefix of build arguments that ask BuildKit for attestations."""

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_PLATFORM = re.compile(r"[a-z0-9_.-]+(?:/[a-z0-9_.-]+){0,2}")
_MAX_PLATFORMS = 20
_MAX_KEY = 40
_MAX_NOTES = 10
"""The most unknown keys that are named: a document of a megabyte can have 100,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildConfig:
    """What to build and where to push it.

    Attributes:
        image: the reference to push, its repository in lower case; empty only with `skip_push`.
        build_args: the Dockerfile's build arguments.
        platforms: as `os/arch[/variant]`; empty means the builder's own.
        skip_push: build without a push.
        target: the stage to build; empty: the last one.
        dockerfile: its path in the context; empty: `Dockerfile`.
        tags: more references to push.
        labels: of the image.
        annotations: of the manifest, or of the object in the name's prefix (`index:`).
        no_cache: whether to run every step again, or the stages for which to do so.
        pull: look for newer base images, even if BuildKit has one.
        oci_media_types: of the image: OCI's, or Docker's; None: the builder's default.
        compression: of the layers, a name of `HIGHEST_LEVELS`; empty: the builder's default.
        compression_level: from 0; None: the compression's own default.
        rewrite_timestamp: limit the times of all files to the build argument SOURCE_DATE_EPOCH.
        add_hosts: more host names for the steps, as `host=address`.
        shm_size: bytes of the steps' `/dev/shm`; 0: BuildKit's own default.
        ulimits: the steps' limits, as `name=soft:hard`.
        cache_from: caches in a registry to import.
        cache_to: caches in a registry to export.
        contexts: named contexts: name -> `docker-image://reference`, or a folder of the tar.
        attest: the attestations of the image.
        queue_timeout: the most seconds to wait for a slot; None: the builder's setting.
        notes: warnings about the configuration, one line each, such as unknown keys. Not part of
            the document.
    """

    image: str = ""
    build_args: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    platforms: tuple[str, ...] = ()
    skip_push: bool = False
    target: str = ""
    dockerfile: str = ""
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    no_cache: bool | tuple[str, ...] = False
    pull: bool = False
    oci_media_types: bool | None = None
    compression: str = ""
    compression_level: int | None = None
    rewrite_timestamp: bool = False
    add_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    contexts: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    attest: Attest = field(default_factory=Attest)
    queue_timeout: float | None = None
    notes: Sequence[str] = field(default=(), compare=False)

    @property
    def repository(self) -> str:
        """The image without its tag; empty without an image."""
        return split_reference(self.image)[0]

    @property
    def image_format(self) -> ImageFormat:
        """What the request says of the image's format."""
        return ImageFormat(self.compression, self.compression_level, self.oci_media_types)

    def to_json(self) -> bytes:
        """The entry's bytes, in the form of a client."""
        document: dict[str, object] = {"buildArgs": dict(self.build_args)}
        for name, key in {key.field: key.name for key in _KEYS if key.field}.items():
            value = getattr(self, name)
            if value != getattr(_DEFAULT, name):
                document[key] = value
        return json.dumps(document, default=_plain).encode()


def parse_config(data: bytes) -> BuildConfig:
    """Read the entry's bytes.

    Raises:
        Refusal: 400: a key is invalid; the text names it and the valid values.
    """
    document = _load(data)
    values = _values(document)
    fields: dict[str, Any] = {}
    for key in _KEYS:
        if (value := values.get(key.name.lower())) is not None:
            found = key.read(key.name, value)
            if found not in ("", None):
                fields[key.field] = found
    if "image" in fields:
        fields["image"] = normalise_reference(fields["image"])
    elif not fields.get("skip_push"):
        raise wrong("image is missing: name the image to push")
    config = BuildConfig(**fields, notes=_notes(key for key, _ in document.items))
    _check_together(config)
    return config


def _values(document: Pairs) -> Mapping[str, object]:
    """The document's values by key, in lower case.

    Raises:
        Refusal: 400: a key has two values, in any case. Go uses the last one, and a reader that
            compares names exactly uses another.
    """
    values: dict[str, object] = {}
    known = {key.name.lower(): key.name for key in _KEYS}
    for written, value in document.items:
        key = _in_lower_case(written)
        if value is None:
            continue
        if key in known and values.setdefault(key, value) != value:
            raise wrong(f"{known[key]} is there twice, with different values: which one is meant?")
        values[key] = value
    return values


def _in_lower_case(key: str) -> str:
    """A key as Go compares it: a long s (U+017F) is an s, and the Kelvin sign (U+212A) a k."""
    return key.lower().replace("\u017f", "s")


def _check_together(config: BuildConfig) -> None:
    """Refuse keys that need, or exclude, another key."""
    attested = config.attest.provenance or config.attest.sbom
    by_argument = any(name.startswith(ATTEST_ARG) for name in config.build_args)
    annotations = [options.annotation(key) for key in config.annotations]
    if config.tags and not config.image:
        raise wrong("tags are further names of an image: name the first in image")
    if attested and by_argument:
        raise wrong(f"attest and a build argument {ATTEST_ARG}… exclude one another")
    if annotations and config.oci_media_types is False:
        raise wrong("annotations need OCI's media types: ociMediaTypes must not be false")
    for each in annotations:
        if each.is_of_index and len(config.platforms) < 2 and not (attested or by_argument):
            raise wrong(
                f"annotations: {each.kind}: there is an index only with several platforms, "
                "or with attestations"
            )
        if each.platform and each.platform not in config.platforms:
            raise wrong(f"annotations: {shown(each.platform)} is not one of platforms")
    if problem := config.image_format.problem:
        raise wrong(problem)
    if config.rewrite_timestamp and not config.build_args.get("SOURCE_DATE_EPOCH"):
        raise wrong("rewriteTimestamp needs the build argument SOURCE_DATE_EPOCH")


def _load(data: bytes) -> Pairs:
    if len(data) > MAX_CONFIG_BYTES:
        raise Refusal(400, f"{CONFIG_NAME}: larger than {MAX_CONFIG_BYTES} bytes")
    try:
        document = load_json(data, Pairs)
    except ValueError as error:
        raise Refusal(400, f"{CONFIG_NAME}: {error}") from error
    if not isinstance(document, Pairs):
        raise Refusal(400, f"{CONFIG_NAME}: must be a JSON object")
    return document


def _build_args(name: str, value: object) -> Mapping[str, str]:
    """Build arguments; a null one is absent, so the Dockerfile's default is used."""
    if not isinstance(value, Pairs):
        raise wrong(f"{name} must be an object of strings")
    args: dict[str, str] = {}
    for arg, content in value.items:
        if content is None:
            args.pop(arg, None)
            continue
        if not isinstance(content, str):
            raise wrong(f"build argument {shown(arg)} must be a string")
        if not arg or not is_plain(arg) or not is_plain(content):
            raise wrong(
                f"build argument {shown(arg)}: the name is empty, "
                "or name or value holds NUL or half a surrogate pair",
            )
        args[arg] = content
    return MappingProxyType(args)


def _platforms(name: str, value: object) -> tuple[str, ...]:
    platforms = texts(name, value, most=_MAX_PLATFORMS)
    for platform in platforms:
        if not _PLATFORM.fullmatch(platform):
            raise Refusal(400, f"platform {shown(platform)}: must look like linux/amd64")
    return platforms


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the document.

    Attributes:
        name: as in the API's page.
        field: of BuildConfig; a later key of the table replaces its value.
        read: checks and converts a value that is not null; the name is for refusals.
    """

    name: str
    field: str
    read: Callable[[str, object], object]


_KEYS: Final = (
    _Key("ref", "image", text),
    _Key("image", "image", text),
    _Key("buildArgs", "build_args", _build_args),
    _Key("platforms", "platforms", _platforms),
    _Key("skipPush", "skip_push", flag),
    _Key("target", "target", options.stage),
    _Key("dockerfile", "dockerfile", options.dockerfile),
    _Key("tags", "tags", options.tags),
    _Key("labels", "labels", options.labels),
    _Key("annotations", "annotations", options.annotation_names),
    _Key("noCache", "no_cache", options.stages),
    _Key("pull", "pull", flag),
    _Key("ociMediaTypes", "oci_media_types", flag),
    _Key("compression", "compression", compression),
    _Key("compressionLevel", "compression_level", compression_level),
    _Key("rewriteTimestamp", "rewrite_timestamp", flag),
    _Key("addHosts", "add_hosts", options.add_hosts),
    _Key("shmSize", "shm_size", options.shm_size),
    _Key("ulimits", "ulimits", options.ulimits),
    _Key("cacheFrom", "cache_from", options.cache_imports),
    _Key("cacheTo", "cache_to", options.cache_exports),
    _Key("contexts", "contexts", options.contexts),
    _Key("attest", "attest", options.attest),
    _Key("queueTimeout", "queue_timeout", options.seconds),
    _Key("outputs", "", options.outputs),
)
_DEFAULT: Final = BuildConfig()

_SILENT: Final = frozenset({"frontend"})
"""Keys that old clients always send: they have no effect, and cause no note."""

_OTHER_NAMES: Final = {
    "args": "buildArgs",
    "file": "dockerfile",
    "name": "image",
    "provenance": "attest",
    "push": "skipPush",
    "sbom": "attest",
    "tag": "image",
}
"""Other names for a key, which are not similar to it."""


def _notes(keys: Iterable[str]) -> list[str]:
    """A note for each unknown key, with the key that was probably meant."""
    known = {key.name.lower() for key in _KEYS} | _SILENT
    unknown = [key for key in dict.fromkeys(keys) if _in_lower_case(key) not in known]
    if not unknown:
        return []
    names = {_folded(key.name): key.name for key in _KEYS}
    notes = []
    for key in unknown[:_MAX_NOTES]:
        folded = _folded(key[:_MAX_KEY])
        # Loaded here, because most configurations have no unknown key.
        from difflib import get_close_matches  # noqa: PLC0415 (as above)

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


def _plain(value: object) -> object:
    """A field's value in JSON's types."""
    if isinstance(value, Attest):
        return {"provenance": value.provenance or False, "sbom": value.sbom}
    assert isinstance(value, Mapping)
    return dict(value)
