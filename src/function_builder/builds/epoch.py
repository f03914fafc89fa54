"""Whether an image must depend on its request alone, in times too: SOURCE_DATE_EPOCH.

Source: reproducible-builds.org, "SOURCE_DATE_EPOCH"; BuildKit, `docs/build-repro.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from function_builder.builds.build import BuildRequest

EPOCH: Final = "SOURCE_DATE_EPOCH"
_ATTR: Final = f"build-arg:{EPOCH}"
_IGNORED: Final = frozenset({_ATTR, "build-arg:BUILDKIT_CACHE_MOUNT_NS"})


def view(request: BuildRequest, attrs: Mapping[str, str]) -> bytes:
    """What decides, beside names in the context, which of its files BuildKit looks at.

    Attributes, since a build argument may be a COPY's source; and a Dockerfile of another name.
    Empty if the author names no epoch: nothing depends on it then.

    Args:
        request: what to build.
        attrs: the frontend's attributes.
    """
    if not request.names_epoch and _ATTR not in attrs:
        return b""
    filename = attrs.get("filename")
    # The context's digests are followed by those of its named folders.
    dockerfile = [
        digest
        for entry, digest in zip(request.context, request.digests, strict=False)
        if entry.path == filename
    ]
    said = sorted((name, value) for name, value in attrs.items() if name not in _IGNORED)
    return repr((said, dockerfile)).encode()
