"""What a request may name beyond its own files, as the operator's settings have it.

A cache's content is believed by BuildKit: a step that is found there is not run, and a BuildKit
keeps for all its builds what one has found (`solver/combinedcache.go`). So a request may name the
caches alone that the operator trusts as the builder's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from function_builder.builds.options import own_proxies, publishes_arguments
from function_builder.contract.config import BuildConfig
from function_builder.contract.errors import Refusal, shown
from function_builder.contract.options import IMAGE_CONTEXT, cache_attrs
from function_builder.contract.references import full_repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What requests may name.

    Attributes:
        caches: repositories, or what lies below them, that `cacheFrom` and `cacheTo` may name.
        context_images: those that named contexts may be.
        frontends: the frontends' repositories: a named context must not take their place.
        kept_caches: the repository below which the builder keeps functions' own caches.
        sbom_generator: the image that makes SBOMs; empty: none.
        environment: the builder's own, whose proxies become build arguments.
    """

    caches: Sequence[str] = ()
    context_images: Sequence[str] = ()
    frontends: Sequence[str] = ()
    kept_caches: str = ""
    sbom_generator: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def check(self, config: BuildConfig) -> None:
        """Refuse what is not allowed.

        Raises:
            Refusal: 400, naming it and the setting.
        """
        for name, caches in (("cacheFrom", config.cache_from), ("cacheTo", config.cache_to)):
            for cache in caches:
                self._check_cache(name, cache_attrs(cache)["ref"])
        for name, source in config.contexts.items():
            self._check_context(name, source)
        if config.attest.sbom and not self.sbom_generator:
            raise Refusal(
                400, "attest: sbom: this builder has no generator for it (sbom_generator)"
            )

        proxies = own_proxies(config, self.environment)
        if proxies and publishes_arguments(config):
            raise Refusal(
                400,
                "provenance of mode max would publish this builder's proxies with the image: ask "
                f"for min, or set these build arguments in the request: {', '.join(proxies)}",
            )

    def _check_cache(self, name: str, reference: str) -> None:
        kept = bool(self.kept_caches) and _matches(reference, [self.kept_caches])
        if kept or not _matches(reference, self.caches):
            raise Refusal(
                400,
                f"{name}: {shown(reference)} is not allowed on this builder (allowed_caches): "
                f"{_offered(self.caches)}",
            )

    def _check_context(self, name: str, source: str) -> None:
        # BuildKit looks among the named contexts for the image of a `# syntax=` line too.
        if full_repository(name) in map(full_repository, self.frontends):
            raise Refusal(400, f"contexts: {shown(name)} cannot be replaced: it reads Dockerfiles")
        if not source.startswith(IMAGE_CONTEXT):
            return
        reference = source.removeprefix(IMAGE_CONTEXT)
        if not _matches(reference, self.context_images):
            raise Refusal(
                400,
                f"contexts: {shown(reference)} is not allowed on this builder "
                f"(allowed_context_images): {_offered(self.context_images)}",
            )


def _matches(reference: str, allowed: Sequence[str]) -> bool:
    """Whether a reference's repository is one of those, or lies below one; `*` is every one."""
    repository = full_repository(reference)
    for name in allowed:
        place = _place(name)
        if name == "*" or repository == place or repository.startswith(f"{place}/"):
            return True
    return False


def _place(name: str) -> str:
    """A repository in full, or a registry's host as it is."""
    host = "/" not in name and (":" in name or "." in name or name == "localhost")
    return name.lower() if host else full_repository(name.rstrip("/"))


def _offered(allowed: Sequence[str]) -> str:
    return f"use one of {', '.join(allowed)}" if allowed else "it allows none"
