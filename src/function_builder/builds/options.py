"""Convert a request to BuildKit's frontend attributes, exporters and caches.

Source: BuildKit, `frontend/dockerui/config.go`, `exporter/containerimage/exptypes/keys.go`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiobuildkit import CacheEntry, Exporter
from function_builder.builds import cache_mounts
from function_builder.builds.build import BuildRequest
from function_builder.context.transfers import CONTEXT_TREE
from function_builder.contract.config import ATTEST_ARG, BuildConfig
from function_builder.contract.derived import derived_key
from function_builder.contract.image_format import ImageFormat
from function_builder.contract.options import IMAGE_CONTEXT, annotation, cache_attrs

_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_PROVENANCE = "provenance"
_SBOM = "sbom"


def frontend_attrs(request: BuildRequest, environment: Mapping[str, str]) -> dict[str, str]:
    """The attributes of the Dockerfile frontend for a request.

    Args:
        request: what to build.
        environment: the builder's own; its proxies become build arguments, unless the request sets
            them, in upper or lower case.
    """
    config = request.config
    proxies = own_proxies(config, environment)
    attrs = {f"build-arg:{name}": value for name, value in {**proxies, **config.build_args}.items()}
    if config.platforms:
        attrs["platform"] = ",".join(config.platforms)
    attrs |= _step_attrs(config)
    attrs |= _attestations(config, request.sbom_generator)
    attrs |= {f"label:{name}": value for name, value in config.labels.items()}
    # After the client's arguments, so that these override them.
    attrs |= request.frontend
    attrs[cache_mounts.ATTR] = cache_mounts.namespace(
        request.trust_domain,
        kept=request.keeps_cache_mounts and not publishes_arguments(config),
    )
    if config.contexts:
        attrs |= {f"context:{name}": at for name, at in config.contexts.items()}
        attrs |= {f"context:{name}": f"local:{at}" for name, at in folder_trees(config).items()}
        # A frontend without support for named contexts must not ignore them.
        attrs["frontend.caps"] = "moby.buildkit.frontend.contexts+forward"
    return attrs


def own_proxies(config: BuildConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """The builder's proxies that become build arguments: those that the request does not set."""
    given = {name.lower() for name in config.build_args}
    return {name: value for name, value in _proxies(environment).items() if name not in given}


def publishes_arguments(config: BuildConfig) -> bool:
    """Whether all build arguments are pushed with the image, in its provenance.

    BuildKit does so unless the mode is `min`. Source: `solver/llbsolver/provenance.go`.
    """
    modes = _attesting(config, _PROVENANCE).values()
    return config.attest.provenance == "max" or any(not _is_min(value) for value in modes)


def attests(config: BuildConfig) -> bool:
    """Whether BuildKit may add attestations to the image."""
    named = any(name.startswith(ATTEST_ARG) for name in config.build_args)
    return bool(named or config.attest.provenance or config.attest.sbom)


def _attesting(config: BuildConfig, kind: str) -> dict[str, str]:
    """The build arguments that BuildKit reads as an attestation of a kind, in any letter case.

    Source: BuildKit, `frontend/attestations/parse.go`.
    """
    return {
        name: value
        for name, value in config.build_args.items()
        if name.startswith(ATTEST_ARG) and name[len(ATTEST_ARG) :].lower() == kind
    }


def _is_min(value: str) -> bool:
    """Whether an attestation's attributes, in CSV, can only be read as `mode=min`."""
    modes = [field for field in value.split(",") if "mode" in field]
    return modes == ["mode=min"] and '"' not in value


def _step_attrs(config: BuildConfig) -> dict[str, str]:
    """The stage to build, the Dockerfile, and options of the steps."""
    attrs = {
        "target": config.target,
        "filename": config.dockerfile,
        "image-resolve-mode": "pull" if config.pull else "",
        "add-hosts": ",".join(config.add_hosts),
        "shm-size": str(config.shm_size or ""),
        "ulimit": ",".join(config.ulimits),
    }
    given = {name: value for name, value in attrs.items() if value}
    if config.no_cache:
        # An empty value means all stages.
        given["no-cache"] = ",".join(config.no_cache) if isinstance(config.no_cache, tuple) else ""
    return given


def _attestations(config: BuildConfig, generator: str) -> dict[str, str]:
    attrs = {}
    if config.attest.provenance:
        attrs["attest:provenance"] = f"mode={config.attest.provenance}"
    if config.attest.sbom:
        attrs["attest:sbom"] = f"generator={generator}"
    if generator:
        # Without a name, BuildKit would run Docker's generator. `frontends.py` refuses other names.
        # Before the request's value, because older frontends ignore what comes after a newline.
        for name, value in _attesting(config, _SBOM).items():
            attrs[f"build-arg:{name}"] = ",".join(filter(None, (f"generator={generator}", value)))
    return attrs


def folder_trees(config: BuildConfig) -> Mapping[str, str]:
    """The session's directory name of each named context that is a folder.

    A context's own name may be an image's, with characters that BuildKit's identifiers cannot
    have.
    """
    folders = [name for name, at in config.contexts.items() if not at.startswith(IMAGE_CONTEXT)]
    return {name: f"folder-{number}" for number, name in enumerate(folders)}


def context_trees(config: BuildConfig) -> list[str]:
    """The session's directories that contain a context."""
    return [CONTEXT_TREE, *folder_trees(config).values()]


def exporters(request: BuildRequest, *, insecure: bool) -> list[Exporter]:
    """The exporters of the image.

    Args:
        request: what to build.
        insecure: push without verifying TLS, or over plain HTTP.
    """
    config = request.config
    attrs: dict[str, str] = {}
    if config.image:
        attrs["name"] = ",".join(dict.fromkeys([config.image, *config.tags]))
    if not config.skip_push:
        attrs["push"] = "true"
        if insecure:
            attrs["registry.insecure"] = "true"
    attrs |= _format_attrs(
        config.image_format.over(request.image_format, annotated=bool(config.annotations))
    )
    if config.rewrite_timestamp:
        attrs["rewrite-timestamp"] = "true"
    for name, value in config.annotations.items():
        at = annotation(name)
        platform = f"[{at.platform}]" if at.platform else ""
        attrs[f"annotation-{at.kind}{platform}.{at.key}"] = value
    return [Exporter("image", attrs)]


def _format_attrs(image: ImageFormat) -> dict[str, str]:
    attrs = {}
    if image.oci_media_types is not None:
        attrs["oci-mediatypes"] = str(image.oci_media_types).lower()
    if image.compression:
        attrs["compression"] = image.compression
    if image.level is not None:
        attrs["compression-level"] = str(image.level)
    return attrs


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name in _PROXIES
        if (value := environment.get(name) or environment.get(name.upper()))
    }


class RegistryCache:
    """The build caches of functions in a registry, for a BuildKit that does not have them.

    Each function has its own repository, whose name is derived from the payload secret. A client
    without the secret cannot compute it, and so cannot read or replace the cache. Logs must not
    show it: `name` is for their mask.

    A failed import is logged, a failed export is ignored (`ignore-error`), and neither fails a
    build.

    Args:
        prefix: such as `registry.internal/build-cache`; empty: no caches.
        insecure: reach the registry without verifying TLS, or over plain HTTP.
    """

    def __init__(self, prefix: str, *, insecure: bool) -> None:
        self._prefix = prefix.rstrip("/")
        self._insecure = insecure

    def imports(self, cache_scope: str | None, named: Iterable[str] = ()) -> list[CacheEntry]:
        """The caches to import.

        Args:
            cache_scope: `{trust_domain}/{repository}`; None for a request without an image.
            named: the request's own caches.
        """
        own = [self._reached(cache_attrs(cache)) for cache in named]
        return [CacheEntry("registry", attrs) for attrs in [*self._attrs(cache_scope), *own]]

    def exports(self, request: BuildRequest) -> list[CacheEntry]:
        """The caches to export, including steps of stages that are not in the image.

        If the build has secrets, such a stage may contain one, so only the request's own caches are
        exported.
        """
        more = {"mode": "max", "ignore-error": "true"}
        scope = None if request.secrets else request.cache_scope
        kept = [attrs | more for attrs in self._attrs(scope)]
        own = [self._reached(cache_attrs(cache)) for cache in request.config.cache_to]
        return [CacheEntry("registry", attrs) for attrs in [*kept, *own]]

    def name(self, cache_scope: str | None) -> str:
        """The cache's repository below the prefix; empty without a cache."""
        if not self._prefix or cache_scope is None:
            return ""
        return derived_key(cache_scope.encode(), "registry cache").hex()[:40]

    def _attrs(self, cache_scope: str | None) -> list[dict[str, str]]:
        name = self.name(cache_scope)
        return [self._reached({"ref": f"{self._prefix}/{name}:cache"})] if name else []

    def _reached(self, attrs: dict[str, str]) -> dict[str, str]:
        named = {name: value for name, value in attrs.items() if name != "type"}
        return named | ({"registry.insecure": "true"} if self._insecure else {})
