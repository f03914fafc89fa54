"""A request in BuildKit's terms: frontend attributes, exporters and caches.

Source: BuildKit, `frontend/dockerui/config.go`, `exporter/containerimage/exptypes/keys.go`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from aiobuildkit import CacheEntry, Exporter
from function_builder.builds.build import BuildRequest
from function_builder.context.transfers import CONTEXT_TREE
from function_builder.contract.config import ATTEST_ARG, BuildConfig
from function_builder.contract.derived import derived_key
from function_builder.contract.options import IMAGE_CONTEXT, annotation, cache_attrs

_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_PROVENANCE = "provenance"


def frontend_attrs(request: BuildRequest, environment: Mapping[str, str]) -> dict[str, str]:
    """The attributes of the Dockerfile frontend for a request.

    Args:
        request: what to build.
        environment: the builder's own; its proxies become build arguments, unless the request
            sets them, in either case of letters.
    """
    config = request.config
    proxies = own_proxies(config, environment)
    attrs = {f"build-arg:{name}": value for name, value in {**proxies, **config.build_args}.items()}
    if config.platforms:
        attrs["platform"] = ",".join(config.platforms)
    attrs |= _step_attrs(config)
    attrs |= _attestations(config, request.sbom_generator)
    attrs |= {f"label:{name}": value for name, value in config.labels.items()}
    if config.contexts:
        attrs |= {f"context:{name}": at for name, at in config.contexts.items()}
        attrs |= {f"context:{name}": f"local:{at}" for name, at in folder_trees(config).items()}
        # A frontend that does not know named contexts refuses the build: it would ignore them.
        attrs["frontend.caps"] = "moby.buildkit.frontend.contexts+forward"
    # After the client's own arguments, so that none of them overrides these.
    attrs |= request.frontend
    attrs["build-arg:BUILDKIT_CACHE_MOUNT_NS"] = _cache_namespace(request)
    return attrs


def own_proxies(config: BuildConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """The builder's proxies that become build arguments: those that the request does not set."""
    given = {name.lower() for name in config.build_args}
    return {name: value for name, value in _proxies(environment).items() if name not in given}


def publishes_arguments(config: BuildConfig) -> bool:
    """Whether all build arguments are pushed with the image, in its provenance.

    BuildKit does so unless the mode is `min`. Source: `solver/llbsolver/provenance.go`.
    """
    modes = [
        value
        for name, value in config.build_args.items()
        if name.startswith(ATTEST_ARG) and name[len(ATTEST_ARG) :].lower() == _PROVENANCE
    ]
    return config.attest.provenance == "max" or any(not _is_min(value) for value in modes)


def _is_min(value: str) -> bool:
    """Whether an attestation's attributes, in CSV, can be read in one way alone: as `mode=min`."""
    modes = [field for field in value.split(",") if "mode" in field]
    return modes == ["mode=min"] and '"' not in value


def _cache_namespace(request: BuildRequest) -> str:
    """What keeps the cache mounts of one payload secret from those of others.

    A client that knows it can reach them, with a frontend that knows no namespaces. So a build
    that publishes its arguments gets one that is used once: its cache mounts begin empty.
    """
    if publishes_arguments(request.config):
        return secrets.token_hex(16)
    return derived_key(request.trust_domain.encode(), "cache mounts").hex()[:32]


def _step_attrs(config: BuildConfig) -> dict[str, str]:
    """Which stage is built, from which file, and what its steps get."""
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
    return attrs


def folder_trees(config: BuildConfig) -> Mapping[str, str]:
    """How the folders of named contexts are called in the session: context -> directory.

    Not by the context's own name, which may be an image's, with characters that BuildKit's
    identifiers do not have.
    """
    folders = [name for name, at in config.contexts.items() if not at.startswith(IMAGE_CONTEXT)]
    return {name: f"folder-{number}" for number, name in enumerate(folders)}


def context_trees(config: BuildConfig) -> list[str]:
    """The directories of the session whose content is a context."""
    return [CONTEXT_TREE, *folder_trees(config).values()]


def exporters(request: BuildRequest, *, insecure: bool) -> list[Exporter]:
    """Where the image goes.

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
    if config.oci_media_types is not None:
        attrs["oci-mediatypes"] = str(config.oci_media_types).lower()
    if config.rewrite_timestamp:
        attrs["rewrite-timestamp"] = "true"
    for name, value in config.annotations.items():
        at = annotation(name)
        platform = f"[{at.platform}]" if at.platform else ""
        attrs[f"annotation-{at.kind}{platform}.{at.key}"] = value
    return [Exporter("image", attrs)]


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name in _PROXIES
        if (value := environment.get(name) or environment.get(name.upper()))
    }


class RegistryCache:
    """Where in a registry a function's build cache is kept, for a BuildKit that does not have it.

    Each function has a repository of its own, whose name is derived from the payload secret for
    this use alone. A client without the secret cannot compute it, neither to read the cache nor to
    push another in its place. So logs must not tell it: `name` is for their mask.

    A cache is a convenience: an import that fails leaves its step in the log, an export that fails
    is ignored (`ignore-error`), and neither ends a build.

    Args:
        prefix: such as `registry.internal/build-cache`; empty: there are none.
        insecure: reach the registry without verifying TLS, or over plain HTTP.
    """

    def __init__(self, prefix: str, *, insecure: bool) -> None:
        self._prefix = prefix.rstrip("/")
        self._insecure = insecure

    def imports(self, function: str | None, named: Iterable[str] = ()) -> list[CacheEntry]:
        """Where a build looks for steps.

        Args:
            function: as the content records call it; None for a build on its own.
            named: the request's own caches.
        """
        own = [self._reached(cache_attrs(cache)) for cache in named]
        return [CacheEntry("registry", attrs) for attrs in [*self._attrs(function), *own]]

    def exports(
        self, function: str | None, named: Iterable[str] = (), *, secret: bool
    ) -> list[CacheEntry]:
        """Where a build leaves its steps, those of stages that are not in its image included.

        Args:
            function: as in `imports`.
            named: the request's own caches.
            secret: whether the build was given secrets. A stage that is not in the image may hold
                one, so nothing is left then but in the request's own caches.
        """
        more = {"mode": "max", "ignore-error": "true"}
        kept = [] if secret else [attrs | more for attrs in self._attrs(function)]
        own = [self._reached(cache_attrs(cache)) for cache in named]
        return [CacheEntry("registry", attrs) for attrs in [*kept, *own]]

    def name(self, function: str | None) -> str:
        """The cache's repository below the prefix; empty if there is none."""
        if not self._prefix or function is None:
            return ""
        return derived_key(function.encode(), "registry cache").hex()[:40]

    def _attrs(self, function: str | None) -> list[dict[str, str]]:
        name = self.name(function)
        return [self._reached({"ref": f"{self._prefix}/{name}:cache"})] if name else []

    def _reached(self, attrs: dict[str, str]) -> dict[str, str]:
        named = {name: value for name, value in attrs.items() if name != "type"}
        return named | ({"registry.insecure": "true"} if self._insecure else {})
