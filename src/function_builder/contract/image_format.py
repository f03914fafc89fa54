"""How an image's layers are compressed, and the media types of its manifest.

Source: BuildKit, `exporter/containerimage/opts.go` and `util/compression`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from function_builder.contract.errors import shown
from function_builder.contract.values import text, wrong

HIGHEST_LEVELS: Final = {"uncompressed": 0, "gzip": 9, "estargz": 9, "zstd": 22}
"""The compressions, with the highest level of each."""

_OCI_ONLY: Final = frozenset({"estargz", "zstd"})
"""Compressions that Docker's media types have no name for."""


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """The format of an image. Layers that BuildKit has compressed already keep theirs.

    Attributes:
        compression: a key of `HIGHEST_LEVELS`; empty: BuildKit's own default.
        level: from 0; None: the compression's own default.
        oci_media_types: OCI's media types, or Docker's; None: BuildKit's own default.
    """

    compression: str = ""
    level: int | None = None
    oci_media_types: bool | None = None

    @property
    def problem(self) -> str:
        """What excludes one another; empty if nothing does."""
        if self.level is not None:
            if not self.compression:
                return "a compression level needs a compression"
            if self.level > (highest := HIGHEST_LEVELS[self.compression]):
                return f"the highest compression level of {self.compression} is {highest}"
        if self.oci_media_types is False and self.compression in _OCI_ONLY:
            return f"{self.compression} needs OCI's media types"
        return ""

    def over(self, default: ImageFormat, *, annotated: bool = False) -> ImageFormat:
        """This format of a request, completed by the builder's default.

        Where a default excludes what the request asks for, the default has no effect.

        Args:
            default: the operator's.
            annotated: whether the request has annotations, which need OCI's media types.
        """
        layers = self if self.compression else default
        needs_oci = annotated or self.compression in _OCI_ONLY
        types = self.oci_media_types
        if types is None and not (needs_oci and default.oci_media_types is False):
            types = default.oci_media_types
        if types is False and layers.compression in _OCI_ONLY:
            layers = self
        return ImageFormat(layers.compression, layers.level, types)


def compression(name: str, value: object) -> str:
    """The name of a compression; empty for none given."""
    given = text(name, value).lower()
    if given and given not in HIGHEST_LEVELS:
        raise wrong(f"{name}: {shown(given)} must be one of {', '.join(HIGHEST_LEVELS)}")
    return given


def compression_level(name: str, value: object) -> int:
    """A level that some compression has."""
    highest = max(HIGHEST_LEVELS.values())
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
        raise wrong(f"{name} must be a whole number from 0 to {highest}")
    return value
