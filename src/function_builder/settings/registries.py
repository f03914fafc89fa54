"""Registries: credentials, TLS, mirrors and the cache of builds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from function_builder.contract.image_format import ImageFormat
from function_builder.settings import values
from function_builder.settings.values import setting


@dataclass(frozen=True, kw_only=True)
class RegistrySettings:
    """A part of `Settings`."""

    docker_config: Path = setting(
        "DOCKER_CONFIG",
        Path,
        Path("~/.docker"),
        "The directory of `config.json`, which holds the registries' credentials.",
    )
    docker_auth_config: str = setting(
        "DOCKER_AUTH_CONFIG",
        values.text,
        "",
        """The JSON of a `config.json`, such as `{"auths": {"HOST": {"auth": "…"}}}`. Its entries
        come first.""",
        secret=True,
    )
    insecure: bool = setting(
        "insecure",
        values.flag,
        False,
        "Push without verifying the registry's TLS certificate, or over plain HTTP.",
    )
    confirm_pushes: bool = setting(
        "confirm_pushes",
        values.flag,
        True,
        """Whether the builder asks the registry for an image after its push. Set `false` for a
        registry that answers 404 to credentials that may push but not pull.""",
    )
    compression: str = setting(
        "compression",
        values.compression,
        "",
        """How layers are compressed, if a request does not say: `gzip`, `zstd`, `estargz` or
        `uncompressed`. zstd is faster than gzip, and needs Docker 23 or containerd 1.5 to pull.
        Layers that are compressed already keep theirs. Empty: BuildKit's own default, gzip.""",
    )
    compression_level: int | None = setting(
        "compression_level",
        values.compression_level,
        None,
        """The level of `compression`: 0 to 9 for gzip and estargz, to 22 for zstd. Empty: its own
        default.""",
    )
    oci_mediatypes: bool | None = setting(
        "oci_mediatypes",
        values.optional_flag,
        None,
        """Whether images have OCI's media types (`true`) or Docker's (`false`), if a request does
        not say. Empty: BuildKit's own default.""",
    )
    cache_registry: str = setting(
        "cache_registry",
        values.repository,
        "",
        """A repository such as `registry.internal:5000/build-cache`, below which each function's
        build cache is stored too, for a BuildKit that does not have it. Empty: no cache is stored
        in a registry.""",
    )
    registry_mirrors: tuple[tuple[str, str], ...] = setting(
        "registry_mirrors",
        values.mirrors,
        (),
        """Mirrors that BuildKit asks before the registry itself, comma separated:
        `docker.io=mirror.internal:5000,ghcr.io=mirror.internal:5000/ghcr`. No build may push to a
        repository there that holds the other registry's images, also with `buildkit_url`.""",
    )
    plain_http_registries: tuple[str, ...] = setting(
        "plain_http_registries",
        values.registries,
        (),
        """Registries and mirrors with plain HTTP, comma separated. Those on 127.0.0.1 need not be
        named.""",
    )
    registry_authorities: tuple[tuple[str, str], ...] = setting(
        "registry_authorities",
        values.pairs,
        (),
        """PEM files of authorities that sign registries' certificates, in addition to the
        system's, comma separated: `registry.internal:5000=/etc/registry-ca.crt`.""",
    )

    @property
    def image_format(self) -> ImageFormat:
        """The format of images, for what a request leaves open."""
        return ImageFormat(self.compression, self.compression_level, self.oci_mediatypes)
