"""The programs that BuildKit runs for a build in addition to its steps: frontend, SBOM generator.

BuildKit's own frontend reads the Dockerfile, or an image that a `# syntax=` line names.

A frontend's image can use the build's session, so only allowed images may be named. BuildKit would
read the line itself. The builder reads it first, and then tells BuildKit explicitly which frontend
to use. So a line that BuildKit reads differently cannot bypass the list. Source of the syntax:
 BuildKit, `frontend/dockerfile/parser/directives.go`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from function_builder.contract.config import ATTEST_ARG
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.references import full_repository, split_reference
from function_builder.contract.text import foreign_encoding

SYNTAX_ARG: Final = "BUILDKIT_SYNTAX"
BUILT_IN: Final = {"cmdline": ""}
"""This attribute makes BuildKit's own frontend read the Dockerfile, without its syntax line."""

MAX_DOCKERFILE_BYTES: Final = 1 << 20
"""The largest Dockerfile, in bytes. Hand-written ones are smaller.

Measured with v0.32.2: BuildKit has five copies of one of 100 MiB in its memory, before it finds it
too long for its messages. 50,000 short instructions in 800 KiB take it 42 s. Since v0.34, its own
frontend reads at most 16 MiB.
"""

_GENERATOR: Final = "generator"

_WITHOUT_CACHE_NAMESPACES = re.compile(r"(?:0(?:\.\d+)*|1\.0(?:\.\d+)?|1\.1\.[01])(?:-.*)?")
"""Tags of docker/dockerfile before 1.1.2, the first with BUILDKIT_CACHE_MOUNT_NS.

Source: BuildKit's commit 26d5ebd1 of July 2019, and its tags `dockerfile/…`.
"""

_NEWER_THAN_CACHE_NAMESPACES: Final = {"frontend.caps": "moby.buildkit.frontend.inputs"}
"""BuildKit refuses a frontend's image whose labels do not have this capability. docker/dockerfile
has it since 1.1.6. An image that is named by digest may have any version.

Source: BuildKit, `frontend/gateway/gateway.go` (`addCapsForKnownFrontends`).
"""

_DIRECTIVES = frozenset({"syntax", "escape", "check"})
_DIRECTIVE = re.compile(r"\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S.*)")


_OWN: Final = "built-in"


class _Allowed(NamedTuple):
    """An entry of `allowed_frontends`.

    Attributes:
        repository: the full name.
        pin: the digest of the image to use, `built-in`, or empty.
    """

    repository: str
    pin: str

    @classmethod
    def parse(cls, entry: str) -> _Allowed:
        own = entry.endswith(f"={_OWN}")
        name, _, digest = entry.removesuffix(f"={_OWN}").partition("@")
        return cls(full_repository(name), _OWN if own else digest)


def frontend_attrs(
    dockerfile: bytes, build_args: Mapping[str, str], allowed: Sequence[str]
) -> Mapping[str, str]:
    """The attributes that choose the frontend for a build.

    Args:
        dockerfile: its bytes.
        build_args: the request's; `BUILDKIT_SYNTAX` overrides the Dockerfile.
        allowed: repositories whose images may be used, such as `docker/dockerfile`. With
            `@sha256:…` only this image; with `=built-in` BuildKit's own frontend instead.

    Raises:
        Refusal: 400: the named image is not allowed.
    """
    _refuse_generators(build_args)
    if encoding := foreign_encoding(dockerfile):
        raise Refusal(400, f"the Dockerfile is {encoding} text: save it as UTF-8")
    named = build_args.get(SYNTAX_ARG, "").strip() or syntax(dockerfile)
    if not named:
        return BUILT_IN
    image, *rest = named.split(maxsplit=1)
    known = {allow.repository: allow for allow in map(_Allowed.parse, allowed)}
    allow = known.get(full_repository(image))
    if allow is None:
        names = ", ".join(entry.partition("=")[0] for entry in allowed)
        raise Refusal(
            400,
            f"the syntax {shown(image)} is not allowed on this builder: "
            f"leave it out, or use one of {names or '(none)'}",
        )
    if allow.pin == _OWN:
        return BUILT_IN
    if allow.pin:
        # BuildKit ignores the tag beside a digest.
        pinned = f"{allow.repository}@{allow.pin}"
        return {f"build-arg:{SYNTAX_ARG}": " ".join([pinned, *rest])}
    tag = split_reference(image.partition("@")[0])[1]
    if "@" not in image and _WITHOUT_CACHE_NAMESPACES.fullmatch(tag):
        raise Refusal(
            400,
            f"the syntax {shown(image)} is too old for this builder: it does not separate the "
            "cache mounts of different clients: use docker/dockerfile:1, or leave it out",
        )
    chosen = {f"build-arg:{SYNTAX_ARG}": named}
    return chosen | _NEWER_THAN_CACHE_NAMESPACES if "@" in image else chosen


def repositories(allowed: Sequence[str], *, pinned: bool = True) -> list[str]:
    """The full repositories of `allowed_frontends`, without digests.

    Args:
        allowed: the setting.
        pinned: also those of which one image is always used, or none.
    """
    return [entry.repository for entry in map(_Allowed.parse, allowed) if pinned or not entry.pin]


def is_pinned(attrs: Mapping[str, str]) -> bool:
    """Whether `frontend_attrs` names an image by digest, which may have any version."""
    return "@" in attrs.get(f"build-arg:{SYNTAX_ARG}", "").partition(" ")[0]


def _refuse_generators(build_args: Mapping[str, str]) -> None:
    """Refuse a generator of SBOMs, which is an image that BuildKit runs; the default is Docker's.

    Source: BuildKit, `frontend/attestations/parse.go`. Any value with this word is refused, because
    parsers of CSV differ.
    """
    for name, value in build_args.items():
        if name.startswith(ATTEST_ARG) and _GENERATOR in value:
            raise Refusal(
                400,
                f"the build argument {shown(name)} may not name a generator on this builder: "
                "leave the generator out",
            )


def syntax(dockerfile: bytes) -> str:
    """The value of the Dockerfile's `syntax` directive; empty without one."""
    text = dockerfile.removeprefix(b"\xef\xbb\xbf")
    if text.startswith(b"#!"):
        text = text.partition(b"\n")[2]
    return _directive(text, "#") or _directive(text, "//") or _json_directive(text)


def _directive(text: bytes, comment: str) -> str:
    """The directives, which are in the first lines, each at most once, before all else."""
    seen: set[str] = set()
    for line in text.split(b"\n", 4)[:4]:
        head, found, rest = line.decode("utf-8", "replace").partition(comment)
        match = _DIRECTIVE.match(rest) if found and not head else None
        if match is None or match[1].lower() not in _DIRECTIVES - seen:
            return ""
        seen.add(match[1].lower())
        if match[1].lower() == "syntax":
            return match[2].strip()
    return ""


def _json_directive(text: bytes) -> str:
    if not text.lstrip().startswith(b"{"):
        return ""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    value = document.get("syntax") if isinstance(document, dict) else None
    return value.strip() if isinstance(value, str) else ""
