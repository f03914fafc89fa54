"""SOURCE_DATE_EPOCH: whether an image, with its times, must only depend on its request.

Source: reproducible-builds.org, "SOURCE_DATE_EPOCH"; BuildKit, `docs/build-repro.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from function_builder.builds import cache_mounts
from function_builder.builds.build import BuildRequest

EPOCH: Final = "SOURCE_DATE_EPOCH"
_ATTR: Final = f"build-arg:{EPOCH}"
_IGNORED: Final = frozenset({_ATTR, cache_mounts.ATTR})


def view(request: BuildRequest, attrs: Mapping[str, str]) -> bytes:
    """The inputs, except the context's names, that decide which of its files BuildKit reads.

    These are the attributes, because a build argument may be a COPY's source, and the Dockerfile's
    digest. Empty if the author names no epoch, because it is then not used.

    Args:
        request: what to build.
        attrs: the frontend's attributes.
    """
    if not request.names_epoch and _ATTR not in attrs:
        return b""
    filename = attrs.get("filename")
    # The digests of named folders follow those of the context.
    dockerfile = [
        digest
        for entry, digest in zip(request.context, request.digests, strict=False)
        if entry.path == filename
    ]
    said = sorted((name, value) for name, value in attrs.items() if name not in _IGNORED)
    return repr((said, dockerfile)).encode()
