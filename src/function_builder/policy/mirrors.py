"""Which repositories a build must not push to, because they stand in for those of another registry.

BuildKit asks a mirror for an image before the registry that the image is named after. So what is
pushed to the mirror becomes the base image, or the frontend, of all who name that image.
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
"""What nearly every Dockerfile is made from: these belong to no client of a builder."""

_LOOPBACK: Final = re.compile(r"(?:localhost|127(?:\.\d+){3}|0\.0\.0\.0|\[::1?\])(?=:|$)")


def refuse_mirror(image: str, mirrors: Mirrors, frontends: Sequence[str]) -> None:
    """Refuse to push where a mirror has the images of another registry.

    A mirror with a path has them below it. Without one its repositories may be a client's own too,
    so that only those are refused that are known to be another registry's.

    Args:
        image: the reference to push, with a registry or without.
        mirrors: what is asked before which registry.
        frontends: repositories whose images BuildKit runs, in full.

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
                f"the image {shown(image)} would stand in for one of {registry}, which this "
                "builder's BuildKit asks that registry for: push to another repository",
            )


def _reserved(registry: str, mirror: str, frontends: Sequence[str]) -> Iterator[str]:
    """The beginnings of the names that are the mirrored registry's."""
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
    """A repository, its registry in one spelling if it is on the loopback interface."""
    return _LOOPBACK.sub("localhost", name.lower(), count=1)
