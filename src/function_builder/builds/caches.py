"""Where in a registry a function's build cache is kept, for a BuildKit that does not have it.

Each function has a repository of its own, called by a hash of the function and of its trust domain,
a name made with the payload secret: who does not have the secret cannot find out the name, neither
to read the cache nor to push another in its place.

A cache is a convenience: an import that fails leaves its step in the log, an export that fails is
ignored (`ignore-error`), and neither ends a build.
"""

from __future__ import annotations

from hashlib import sha256

from aiobuildkit import CacheEntry


class RegistryCache:
    """The caches below one repository's name.

    Args:
        prefix: such as `registry.internal/build-cache`; empty: there are none.
        insecure: reach the registry without verifying TLS, or over plain HTTP.
    """

    def __init__(self, prefix: str, *, insecure: bool) -> None:
        self._prefix = prefix.rstrip("/")
        self._insecure = insecure

    def imports(self, function: str | None) -> list[CacheEntry]:
        """Where a build looks for steps.

        Args:
            function: as the content records call it; None for a build on its own.
        """
        return [CacheEntry("registry", attrs) for attrs in self._attrs(function)]

    def exports(self, function: str | None, *, secret: bool) -> list[CacheEntry]:
        """Where a build leaves its steps, those of stages that are not in its image included.

        Args:
            function: likewise.
            secret: whether the build was given secrets. A stage that is not in the image may hold
                one, so nothing is left then.
        """
        if secret:
            return []
        more = {"mode": "max", "ignore-error": "true"}
        return [CacheEntry("registry", attrs | more) for attrs in self._attrs(function)]

    def _attrs(self, function: str | None) -> list[dict[str, str]]:
        if not self._prefix or function is None:
            return []
        name = sha256(function.encode()).hexdigest()[:40]
        attrs = {"ref": f"{self._prefix}/{name}:cache"}
        if self._insecure:
            attrs["registry.insecure"] = "true"
        return [attrs]
