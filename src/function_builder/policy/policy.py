"""The operator's policy: the caches and images that a request may name.

BuildKit trusts a cache's content: it does not run a step that it finds there, and uses that result
for all its builds (`solver/combinedcache.go`). So a request may only name caches that the operator
trusts like the builder's own.
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
    """The names that requests may use.

    Attributes:
        caches: repositories, with those below them, that `cacheFrom` and `cacheTo` may name.
        context_images: the same for images of named contexts.
        frontends: the frontends' repositories, which a named context must not replace.
        kept_caches: the repository below which the builder stores functions' own caches.
        sbom_generator: the image that makes SBOMs; empty: SBOMs are refused.
        environment: the builder's own, whose proxies become build arguments.
    """

    caches: Sequence[str] = ()
    context_images: Sequence[str] = ()
    frontends: Sequence[str] = ()
    kept_caches: str = ""
    sbom_generator: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def check(self, config: BuildConfig) -> None:
        """Check a request's names.

        Raises:
            Refusal: 400: a name is not allowed; the text has it and the setting.
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
        # BuildKit also looks up the image of a `# syntax=` line among the named contexts.
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
    """Whether a reference's repository is one of these, or below one; `*` allows all."""
    repository = full_repository(reference)
    for name in allowed:
        place = _place(name)
        if name == "*" or repository == place or repository.startswith(f"{place}/"):
            return True
    return False


def _place(name: str) -> str:
    """A full repository name, or a registry's host unchanged."""
    host = "/" not in name and (":" in name or "." in name or name == "localhost")
    return name.lower() if host else full_repository(name.rstrip("/"))


def _offered(allowed: Sequence[str]) -> str:
    return f"use one of {', '.join(allowed)}" if allowed else "it allows none"
