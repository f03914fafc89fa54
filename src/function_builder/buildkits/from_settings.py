"""The BuildKits of the settings, and clients for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from aiobuildkit import Client, TLSConfig
from function_builder.buildkits.addresses import Addresses, Endpoint
from function_builder.buildkits.pool import Pool
from function_builder.buildkits.pools import Pools
from function_builder.errors import StartError
from function_builder.settings import Settings

_log = structlog.get_logger(__name__)

CERTIFICATES: Final = Path("/var/secrets/certs")
"""pro-builder's directory of `ca.crt`, `client.crt` and `client.key`."""


def buildkits(settings: Settings, urls: Callable[[], Mapping[str, str]] | None = None) -> Pools:
    """The BuildKits of `buildkit_url`, and those of tenants, which have the same certificates.

    Args:
        settings: the builder's.
        urls: the `buildkit_url` of each tenant that has one, now; None: there are no tenants.

    Raises:
        StartError: it names no BuildKit.
    """
    try:
        addresses = Addresses.parse(settings.buildkit_url)
    except ValueError as error:
        raise StartError(f"buildkit_url: {error}") from error
    tls = _tls(settings)

    def connect(endpoint: Endpoint) -> Client:
        if tls is None or endpoint.on_unix_socket:
            return Client(endpoint.address)
        name = tls.server_name or endpoint.name or None
        return Client(endpoint.address, tls=replace(tls, server_name=name))

    named = settings.tls_ca or settings.tls_cert
    if named and not addresses.names and all(each.on_unix_socket for each in addresses.fixed):
        _log.warning("certificates have no effect: BuildKit is on a unix socket")
    shared = Pool(addresses, connect)
    if urls is None:
        return Pools(shared)
    return Pools(shared, lambda url: Pool(Addresses.parse(url), connect), urls)


def _tls(settings: Settings) -> TLSConfig | None:
    """TLS to BuildKits on TCP, if certificates are set or exist in the default directory."""
    ca, cert, key = settings.tls_ca, settings.tls_cert, settings.tls_key
    if not (ca or cert):
        if not (CERTIFICATES / "ca.crt").exists():
            return None
        names = ("ca.crt", "client.crt", "client.key")
        ca, cert, key = (str(CERTIFICATES / name) for name in names)
    return TLSConfig(
        ca=ca or None,
        cert=cert or None,
        key=key or None,
        server_name=settings.buildkit_server_name or None,
    )
