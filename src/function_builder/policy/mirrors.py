"""Refuse pushes to repositories that mirror another registry.

BuildKit asks a mirror for an image before the registry in the image's name. So an image pushed to
the mirror would become the base image, or the frontend, of all builds that name this image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from function_builder.contract.errors import Refusal, shown
from function_builder.contract.references import full_repository

Mirrors = Sequence[tuple[str, str]]
"""Registries, and the mirrors that BuildKit asks before them: `host:port`, or with a path."""

_SHARED: Final = {"docker.io": ("library/", "docker/"), "ghcr.io": ("openfaas/",)}
"""Names of common base images, which do not belong to a client of a builder."""

_LOOPBACK: Final = re.compile(r"(?:localhost|127(?:\.\d+){3}|0\.0\.0\.0|\[::1?\])(?=:|$)")


def refuse_mirror(image: str, mirrors: Mirrors, frontends: Sequence[str]) -> None:
    """Refuse a push to a mirror's copy of another registry's image.

    A mirror with a path has its copies below the path. Without a path, its repositories may also be
    a client's own, so only known names of the other registry are refused.

    Args:
        image: the reference to push, with a registry or without.
        mirrors: each registry's mirrors.
        frontends: full names of repositories whose images BuildKit runs.

    Raises:
        Refusal: 400.
    """
    repository = _same(full_repository(image))
    for registry, mirror in mirrors:
        if any(
            f"{repository}/".startswith(each) for each in _reserved(registry, mirror, frontends)
        ):
            raise Refusal(
                400,
                f"the image {shown(image)} would take the place of one of {registry}, which this "
                "builder's BuildKit asks that registry for: push to another repository",
            )


def _reserved(registry: str, mirror: str, frontends: Sequence[str]) -> Iterator[str]:
    """The prefixes of the mirrored registry's names."""
    place = _same(mirror.rstrip("/"))
    if "/" in place:
        yield f"{place}/"
        return
    for name in _SHARED.get(registry, ()):
        yield f"{place}/{name}"
    for frontend in frontends:
        if frontend.startswith(f"{registry}/"):
            yield f"{place}{frontend.removeprefix(registry)}/"


def _same(name: str) -> str:
    """A repository, with one spelling for a registry on the loopback interface."""
    return _LOOPBACK.sub("localhost", name.lower(), count=1)
