"""Build graphs that this client makes itself, in BuildKit's low-level form (LLB)."""

from __future__ import annotations

import hashlib

from aiobuildkit.protos import control_pb2 as pb

__all__ = ["image_source"]


def image_source(reference: str) -> pb.Definition:
    """A graph whose result is an image that BuildKit looks up in its registry, even if it has it.

    Args:
        reference: the full name, such as `docker.io/library/busybox:latest`. For a name with a
            digest, BuildKit would use its own copy.

    Sources: BuildKit's `client/llb/source.go` (Image), `solver/pb/attr.go`.
    """
    source = pb.Op(
        source=pb.SourceOp(
            identifier=f"docker-image://{reference}", attrs={"image.resolvemode": "pull"}
        )
    ).SerializeToString(deterministic=True)
    digest = f"sha256:{hashlib.sha256(source).hexdigest()}"
    result = pb.Op(inputs=[pb.Input(digest=digest)]).SerializeToString(deterministic=True)
    return pb.Definition(**{"def": [source, result]})
