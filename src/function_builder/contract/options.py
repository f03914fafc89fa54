"""The configuration's keys that come from `docker build`: their values, checked.

Source of the forms: docker buildx, `commands/build.go` and `util/buildflags`. `policy/policy.py`
checks values that the operator must allow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final

from function_builder.contract.errors import shown
from function_builder.contract.names import CONTEXT, MAX_PATH
from function_builder.contract.references import (
    full_repository,
    normalise_pulled,
    normalise_reference,
    split_reference,
)
from function_builder.contract.values import Pairs, flag, is_plain, strings, text, texts, wrong

IMAGE_CONTEXT: Final = "docker-image://"
"""The prefix of a named context that is an image; others are folders of the tar."""

_MAX_TAGS = 20
_MAX_LABELS = 200
_MAX_LABEL = 16 * 1024
_MAX_NAME = 255
_MAX_STAGES = 100
_MAX_HOSTS = 100
_MAX_CACHES = 10
_MAX_CONTEXTS = 20
_MAX_SHM = 64 << 30
_MAX_WAIT: Final = 7 * 24 * 3600

_STAGE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_SIZE = re.compile(r"([0-9]{1,12})([kmgt]?)(?:i?b)?", re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_LIMIT = re.compile(r"([a-z]+)=(-1|[0-9]{1,18})(?::(-1|[0-9]{1,18}))?")
_LIMITS: Final = frozenset(
    ["core", "cpu", "data", "fsize", "locks", "memlock", "nofile", "nproc", "rss", "stack"]
)
"""Limits of a step. Others (`rtprio`, `nice`, …) would let it slow down other steps."""

# Source: BuildKit, `exporter/containerimage/exptypes/annotations.go`.
_ANNOTATION = re.compile(
    r"(?:((?:index|manifest)(?:-descriptor)?)(?:\[([A-Za-z0-9_/-]+)\])?:(\S+)|([^\s:]+))"
)
_PATTERN = re.compile(r"[*?\[\]\\]")
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_OTHER_SOURCE = re.compile(r"[a-z-]+:|git@")

_CACHE_FLAGS: Final = ("image-manifest", "oci-mediatypes", "ignore-error")
_OWN_NAMES: Final = frozenset({"scratch", "context", "dockerfile.v0"})
"""Names with a special meaning in BuildKit."""


@dataclass(frozen=True, slots=True)
class Attest:
    """The attestations of an image.

    Attributes:
        provenance: `min`, `max`, or empty for none.
        sbom: whether the image gets a list of its components.
    """

    provenance: str = ""
    sbom: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """The object and the name of an annotation.

    Attributes:
        kind: `manifest`, `index`, `manifest-descriptor` or `index-descriptor`.
        platform: the platform whose image gets it; empty: all.
        key: its name.
    """

    kind: str
    platform: str
    key: str

    @property
    def is_of_index(self) -> bool:
        """Whether only an image index can have it."""
        return self.kind != "manifest"


def stage(name: str, value: object) -> str:
    """A stage of the Dockerfile, by name; BuildKit does not find stages by number."""
    found = text(name, value)
    if found and not _STAGE.fullmatch(found):
        raise wrong(
            f"{name}: {shown(found)} is not the name of a stage: stages are named by FROM … AS name"
        )
    return found


def stages(name: str, value: object) -> bool | tuple[str, ...]:
    """All stages (true), or some of them."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, list):
        raise wrong(f"{name} must be true, false, or a list of stages")
    return tuple(stage(name, item) for item in texts(name, value, most=_MAX_STAGES))


def dockerfile(name: str, value: object) -> str:
    """A file of the context, by its path there."""
    path = text(name, value)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise wrong(f"{name}: {shown(path)} must be a path inside the context")
    # BuildKit reads the path as a pattern when it requests the file.
    if _PATTERN.search(path) or not path.isprintable() or len(path.encode()) > MAX_PATH:
        raise wrong(f"{name}: {shown(path)} has a character that no Dockerfile's name may have")
    return "/".join(parts)


def tags(name: str, value: object) -> tuple[str, ...]:
    """More references, checked like `image`."""
    found = texts(name, value, most=_MAX_TAGS)
    for reference in found:
        if "/" not in reference and ":" not in reference:
            raise wrong(
                f"{name}: {shown(reference)} must be a whole reference, such as host:5000/name:tag"
            )
    return tuple(dict.fromkeys(map(normalise_reference, found)))


def labels(name: str, value: object) -> Mapping[str, str]:
    """Labels of the image."""
    found = strings(name, value, most=_MAX_LABELS)
    for key, content in found.items():
        if "=" in key or " " in key:
            raise wrong(f"{name}: the name {shown(key)} may not have a space or =")
        _check_label(name, key, content)
    return MappingProxyType(found)


def annotation_names(name: str, value: object) -> Mapping[str, str]:
    """Annotations, with names in the form of docker buildx."""
    found = strings(name, value, most=_MAX_LABELS)
    for key, content in found.items():
        _check_label(name, key, content)
        if not _ANNOTATION.fullmatch(key):
            raise wrong(
                f"{name}: {shown(key)} is not a name: a name may begin with index:, "
                "manifest: or manifest[linux/amd64]: and has no space"
            )
    return MappingProxyType(found)


def annotation(key: str) -> Annotation:
    """Read the name of an annotation that `annotation_names` has checked."""
    match = _ANNOTATION.fullmatch(key)
    assert match is not None, "annotations are checked"
    return Annotation(match[1] or "manifest", match[2] or "", match[3] or match[4])


def add_hosts(name: str, value: object) -> tuple[str, ...]:
    """Lines of the steps' `/etc/hosts`, as `host=address`."""
    found = []
    for item in texts(name, value, most=_MAX_HOSTS):
        equals = "=" in item
        host, _, address = item.partition("=" if equals else ":")
        address = address.removeprefix("[").removesuffix("]") if equals else address
        try:
            valid = _HOST.fullmatch(host) and "%" not in address and ip_address(address)
        except ValueError:
            valid = None
        if not valid:
            raise wrong(f"{name}: {shown(item)} must look like db.internal=10.0.0.5")
        found.append(f"{host}={address}")
    return tuple(found)


def shm_size(name: str, value: object) -> int:
    """The size of the steps' `/dev/shm` in bytes; a string may have a unit, of powers of 1024."""
    size = -1
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        size = int(match[1]) * _UNITS[match[2].lower()]
    if not 0 <= size <= _MAX_SHM:
        raise wrong(f'{name} must be a number of bytes up to 64 GiB, or such as "128m"')
    return size


def seconds(name: str, value: object) -> float:
    """A number of seconds, up to a week."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MAX_WAIT:
        raise wrong(f"{name} must be a number of seconds, more than 0 and at most {_MAX_WAIT}")
    return float(value)


def ulimits(name: str, value: object) -> tuple[str, ...]:
    """The steps' limits, each as `name=soft:hard`."""
    found = []
    for item in texts(name, value, most=len(_LIMITS)):
        match = _LIMIT.fullmatch(item)
        if match is None or match[1] not in _LIMITS:
            raise wrong(
                f"{name}: {shown(item)} must look like nofile=1024:2048; "
                f"limits are {', '.join(sorted(_LIMITS))}"
            )
        soft, hard = int(match[2]), int(match[3] or match[2])
        if hard != -1 and (soft == -1 or soft > hard):
            raise wrong(f"{name}: {shown(item)} has a soft limit above its hard limit")
        found.append(f"{match[1]}={soft}:{hard}")
    return tuple(found)


def cache_imports(name: str, value: object) -> tuple[str, ...]:
    """Caches to import, each a reference or in the form of docker buildx."""
    return _caches(name, value, {})


def cache_exports(name: str, value: object) -> tuple[str, ...]:
    """Caches to export, in the same form, with `mode` and the options of an export."""
    return _caches(name, value, {"mode": ("min", "max"), **dict.fromkeys(_CACHE_FLAGS, _BOOLEANS)})


def cache_attrs(cache: str) -> dict[str, str]:
    """A cache's attributes for BuildKit, including `ref`, from the value of `cacheFrom`."""
    attrs = _cache_attrs(cache)
    return attrs | {"ref": normalise_pulled(attrs.get("ref", ""))}


def _cache_attrs(cache: str) -> dict[str, str]:
    if "=" not in cache:
        return {"ref": cache}
    return dict(part.strip().partition("=")[::2] for part in cache.split(","))


_BOOLEANS: Final = ("true", "false")


def _caches(name: str, value: object, options: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    found = texts(name, value, most=_MAX_CACHES)
    known = {"type": ("registry",), "ref": (), **options}
    references = set()
    for item in found:
        for key, content in _cache_attrs(item).items():
            if key not in known or (known[key] and content not in known[key]):
                wanted = f"; {key} may be {' or '.join(known[key])}" if key in known else ""
                raise wrong(
                    f"{name}: {shown(item)}: {shown(f'{key}={content}')} is not offered: "
                    f"a cache is type=registry,ref=host/name:tag{wanted}"
                )
        references.add(cache_attrs(item)["ref"])
    if len(references) < len(found):
        raise wrong(f"{name} names a reference twice")
    return found


def contexts(name: str, value: object) -> Mapping[str, str]:
    """Named contexts: the name in the Dockerfile, and an image or a folder of the tar."""
    found: dict[str, str] = {}
    for key, content in strings(name, value, most=_MAX_CONTEXTS).items():
        context = context_name(key)
        if context in _OWN_NAMES:
            raise wrong(f"{name}: {shown(key)} cannot be the name of a context")
        source = _context(name, content.strip())
        if context in found or (not source.startswith(IMAGE_CONTEXT) and source in found.values()):
            raise wrong(f"{name}: {shown(key)}: the name or its folder is there twice")
        found[context] = source
    return MappingProxyType(found)


def context_name(name: str) -> str:
    """A context's name in the form that BuildKit looks up: that of an image, in its short form."""
    repository, tag = split_reference(normalise_reference(name))
    familiar = re.fullmatch(r"docker\.io/(?:library/(?=[^/]*$))?(.*)", full_repository(repository))
    repository = familiar[1] if familiar else repository
    return f"{repository}:{tag}" if tag not in ("", "latest") else repository


def _context(name: str, value: str) -> str:
    if value.startswith(IMAGE_CONTEXT):
        return IMAGE_CONTEXT + normalise_pulled(value.removeprefix(IMAGE_CONTEXT))
    if _OTHER_SOURCE.match(value):
        raise wrong(
            f"{name}: {shown(value)} is not offered: "
            f"a context is {IMAGE_CONTEXT}host/name:tag, or a folder beside {CONTEXT}/ in the tar"
        )
    if not _FOLDER.fullmatch(value) or value == CONTEXT:
        raise wrong(f"{name}: {shown(value)} is not the name of a folder beside {CONTEXT}/")
    return value


def attest(name: str, value: object) -> Attest:
    """Attestations: `{"provenance": "max", "sbom": true}`."""
    if not isinstance(value, Pairs):
        raise wrong(f'{name} must be an object such as {{"provenance": "max", "sbom": true}}')
    provenance, sbom = "", False
    for key, content in value.items:
        if key.lower() == "provenance":
            levels = {None: "", False: "", True: "min", "min": "min", "max": "max"}
            if not isinstance(content, str | bool | None) or content not in levels:
                raise wrong(f'{name}: provenance must be "min", "max", true or false')
            provenance = levels[content]
        elif key.lower() == "sbom":
            sbom = content is not None and flag(f"{name}: sbom", content)
        else:
            raise wrong(f"{name}: {shown(key)} is not offered: provenance and sbom are")
    return Attest(provenance, sbom)


def outputs(name: str, value: object) -> None:
    """Refuse all outputs except a registry."""
    for output in texts(name, value, most=1):
        if output.removeprefix("type=") not in ("image", "registry"):
            raise wrong(
                f"{name}: {shown(output)} is not offered: images are only pushed to a registry. "
                "Pull the image from there: docker pull, crane export"
            )


def _check_label(name: str, key: str, content: str) -> None:
    if not key or not key.isprintable() or len(key) > _MAX_NAME:
        raise wrong(f"{name}: {shown(key)} must have 1 to {_MAX_NAME} printable characters")
    line = content.replace("\n", "").replace("\t", "").replace("\r", "")
    if len(content) > _MAX_LABEL or not is_plain(content) or any(map(_is_control, line)):
        raise wrong(
            f"{name}: the value of {shown(key)} has more than {_MAX_LABEL} characters, "
            "or control characters other than line ends and tabs"
        )


def _is_control(char: str) -> bool:
    return char < " " or "\x7f" <= char <= "\x9f"
