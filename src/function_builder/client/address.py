"""The builder's address, without the credentials that the given URL may contain."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import httpx2

DEFAULT_URL: Final = "http://127.0.0.1:8080"
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
"""Addresses of this machine, for which a proxy of the environment is not used."""

_CREDENTIALS: Final = re.compile(r"//.*@", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the builder listens.

    Attributes:
        url: without credentials, so that no error and no log line contains any.
        credentials: user and password for HTTP's basic authentication, if the URL had them.
    """

    url: httpx2.URL
    credentials: tuple[str, str] | None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a URL; `/build` is added when it has no path.

        Raises:
            ValueError: it is not an http or https address; the text contains no password.
        """
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, UnicodeError):
            parsed = httpx2.URL()
        usable = parsed.port is None or 0 < parsed.port < 1 << 16
        if parsed.scheme not in ("http", "https") or not parsed.host or not usable:
            raise ValueError(
                f"{without_credentials(url)!r} is not an address of a builder, such as"
                f" {DEFAULT_URL}"
            )
        credentials = (parsed.username, parsed.password)
        bare = parsed.copy_with(
            username=None, password=None, path=parsed.path if parsed.path != "/" else "/build"
        )
        return cls(bare, credentials if parsed.userinfo else None)

    @property
    def shown(self) -> str:
        """The address for an error, without its query, which may contain a token."""
        return str(self.url.copy_with(query=None, fragment=None))


def without_credentials(url: str) -> str:
    """A text that should be a URL, without the part before its last @."""
    return _CREDENTIALS.sub("//***@", url)
