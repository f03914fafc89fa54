"""Why there was no answer, in plain words."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.request import getproxies_environment, proxy_bypass

from function_builder.client.address import LOCAL_HOSTS, Address, without_credentials
from function_builder.client.errors import Unreachable
from function_builder.client.runtime import (
    BrokenExchange,
    ConnectTimeout,
    NoConnection,
    ProxyRefused,
    SilentPeer,
)
from function_builder.client.tls import tls_reason

_PROBE_SECONDS: Final = 2.0


def explain(
    error: BrokenExchange,
    address: Address,
    context: ssl.SSLContext | None,
    connect_timeout: float,
) -> Unreachable:
    """Say why a request had no answer; this blocks, and may connect to the server again.

    Args:
        error: how the request ended.
        address: of the server.
        context: of TLS; None for plain HTTP.
        connect_timeout: seconds that the connection had.
    """
    where = address.shown + _proxied(address)
    match error:
        case ConnectTimeout():
            return Unreachable(f"no connection to {where} within {connect_timeout:g} s")
        case ProxyRefused():
            return Unreachable(f"cannot connect to {where}: the proxy answered: {error}")
        case NoConnection():
            return Unreachable(f"cannot connect to {where}: {_reason(error)}")
        case SilentPeer():
            return Unreachable(f"{where} accepted the connection, but sent no answer")
    found = _handshake(address, context)
    if found is not None:
        return Unreachable(f"cannot connect to {where}: {found}")
    return Unreachable(f"{where} closed the connection without an answer")


def _proxied(address: Address) -> str:
    """The proxy of the environment that was used, for an error."""
    proxies = getproxies_environment()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    host = address.host
    if not proxy or host in LOCAL_HOSTS or proxy_bypass(host):
        return ""
    return f" through the proxy {without_credentials(proxy)}"


def _reason(error: BaseException) -> str:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return tls_reason(cause)
        if isinstance(cause, socket.gaierror):
            return str(cause.strerror)
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
    return str(error) or "the connection failed"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, of which the last is the system's own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ExceptionGroup):  # one for each address that was tried
            seen = seen.exceptions[0]
        yield seen
        seen = seen.__cause__ or seen.__context__


def _handshake(address: Address, context: ssl.SSLContext | None) -> str | None:
    """The result of a TLS handshake, after a request whose connection was closed.

    A server of TLS closes a connection that begins in plain HTTP; one that requires a client
    certificate says so (TLS 1.3) after the client's handshake has ended, while the client sends.
    It blocks, because asyncio's streams do not show an alert after the handshake.
    """
    plain = context is None
    try:
        with (
            socket.create_connection((address.host, address.port), _PROBE_SECONDS) as connection,
            (context or _unverified()).wrap_socket(
                connection, server_hostname=address.host
            ) as secure,
        ):
            if plain:
                return "the port speaks TLS: use https://"
            secure.recv(1)
    except ssl.SSLError as error:
        return None if plain else tls_reason(error)
    except OSError:
        return None
    return None


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
