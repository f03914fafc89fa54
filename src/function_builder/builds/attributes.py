"""A request in BuildKit's terms: frontend attributes and exporters."""

from __future__ import annotations

from collections.abc import Mapping

from aiobuildkit import Exporter
from function_builder.builds.build import BuildRequest

_PROXIES = ("http_proxy", "https_proxy", "no_proxy")


def frontend_attrs(request: BuildRequest, environment: Mapping[str, str]) -> dict[str, str]:
    """The attributes of the Dockerfile frontend for a request.

    Args:
        request: what to build.
        environment: the builder's own; its proxies become build arguments, unless the request
            sets them, in either case of letters.
    """
    config = request.config
    attrs = {f"build-arg:{name}": value for name, value in _proxies(environment).items()}
    for name, value in config.build_args.items():
        if name.lower() in _PROXIES:
            attrs.pop(f"build-arg:{name.lower()}", None)
        attrs[f"build-arg:{name}"] = value
    if config.platforms:
        attrs["platform"] = ",".join(config.platforms)
    # After the client's own arguments, so that none of them overrides these.
    attrs |= request.frontend
    attrs["build-arg:BUILDKIT_CACHE_MOUNT_NS"] = request.trust_domain
    return attrs


def exporters(request: BuildRequest, *, insecure: bool) -> list[Exporter]:
    """Where the image goes.

    Args:
        request: what to build.
        insecure: push without verifying TLS, or over plain HTTP.
    """
    attrs: dict[str, str] = {}
    if request.config.image:
        attrs["name"] = request.config.image
    if not request.config.skip_push:
        attrs["push"] = "true"
        if insecure:
            attrs["registry.insecure"] = "true"
    return [Exporter("image", attrs)]


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name in _PROXIES
        if (value := environment.get(name) or environment.get(name.upper()))
    }
