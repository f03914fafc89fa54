"""The builder's address, without the credentials that the given URL may contain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

DEFAULT_URL: Final = "http://127.0.0.1:8080"
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
"""Addresses of this machine, for which a proxy of the environment is not used."""

_CREDENTIALS: Final = re.compile(r"//.*@", re.DOTALL)
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Address(NamedTuple):
    """Where the builder listens.

    Attributes:
        scheme: http or https.
        host: without the brackets of an IPv6 address.
        port: the given one, or that of the scheme.
        path: percent-encoded.
        query: percent-encoded; empty without one. It may contain a token.
        credentials: user and password for HTTP's basic authentication, if the URL had them.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str
    credentials: tuple[str, str] | None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL; `/build` is added when it has no path.

        Raises:
            ValueError: it is not an http or https address; the text contains no password.
        """
        try:
            parts = urlsplit(url)
            host, port = _host(parts), parts.port
        except ValueError:
            parts, host, port = SplitResult("", "", "", "", ""), "", None
        usable = url.isprintable() and not any(map(str.isspace, url)) and port != 0
        if parts.scheme not in _DEFAULT_PORTS or not host or not usable:
            raise ValueError(
                f"{without_credentials(url)!r} is not an address of a builder, such as"
                f" {DEFAULT_URL}"
            )
        credentials = None
        if parts.username or parts.password:
            credentials = (unquote(parts.username or ""), unquote(parts.password or ""))
        return cls(
            parts.scheme,
            host,
            port or _DEFAULT_PORTS[parts.scheme],
            quote(parts.path if parts.path not in ("", "/") else "/build", safe=_PATH_SAFE),
            quote(parts.query, safe=f"{_PATH_SAFE}?"),
            credentials,
        )

    @property
    def origin(self) -> str:
        """The scheme, the host, and the port if it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port != _DEFAULT_PORTS[self.scheme] else ""
        return f"{self.scheme}://{host}{port}"

    @property
    def shown(self) -> str:
        """The address for an error, without its query, which may contain a token."""
        return self.origin + self.path

    def target(self, path: str, params: Mapping[str, str] | None = None) -> str:
        """A path with the address's query and more parameters, as a request names it."""
        query = "&".join(filter(None, (self.query, urlencode(params or {}, quote_via=quote))))
        return path + (f"?{query}" if query else "")


def without_credentials(url: str) -> str:
    """A text that should be a URL, without the part before its last @."""
    return _CREDENTIALS.sub("//***@", url)


def _host(parts: SplitResult) -> str:
    """The host in ASCII.

    Raises:
        ValueError: it is not one.
    """
    host = parts.hostname or ""
    return host if host.isascii() else host.encode("idna").decode()
