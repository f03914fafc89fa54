"""The namespace of a build's cache mounts, which separates those of different payload secrets.

BuildKit gets it as a build argument, and publishes build arguments with an image: in its history,
if the Dockerfile or an ONBUILD of a base image declares the argument, and in a provenance of mode
`max`. A step can print it too. A client that knows the namespace of another payload secret can
reach its cache mounts, with a frontend that ignores namespaces.

So only a build that needs it gets the namespace of its payload secret: its Dockerfile mounts
something, and does not name the argument. Other builds get a new one, and empty cache mounts.
Source: BuildKit, `frontend/dockerfile/dockerfile2llb/convert.go` (`dispatchArg`).
"""

from __future__ import annotations

import re
import secrets
from typing import Final

from function_builder.contract.derived import derived_key

_ARG: Final = "BUILDKIT_CACHE_MOUNT_NS"

ATTR: Final = f"build-arg:{_ARG}"

_MOUNT: Final = b"--mount"

_SPLITTING: Final = re.compile(rb"[\s\\`\"']+")
"""What a word of an instruction may contain: quotes, escapes, and continued lines."""


def are_kept(dockerfile: bytes) -> bool:
    """Whether a Dockerfile's cache mounts are those of its payload secret."""
    words = _SPLITTING.sub(b"", dockerfile)
    return _MOUNT in words and _ARG.encode() not in words


def namespace(trust_domain: str, *, kept: bool) -> str:
    """The value of the argument.

    Args:
        trust_domain: of the payload secret.
        kept: whether other builds with the same payload secret get it too.
    """
    if not kept:
        return secrets.token_hex(16)
    return derived_key(trust_domain.encode(), "cache mounts").hex()[:32]
