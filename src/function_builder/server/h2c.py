"""Offers of another protocol, taken out of requests before they are parsed.

curl with `--http2` and Java's HttpClient offer HTTP/2 with each request over plain HTTP (`Upgrade:
h2c`). A server may ignore that (RFC 9110, 7.8), as Go's does; but httptools then takes the request
to end with its headers, and its body for another request.
"""

from __future__ import annotations

import re
from typing import Final

_OFFER: Final = re.compile(rb"(?<=\r\n)upgrade(?=:)", re.IGNORECASE)
_IGNORED: Final = b"X-Ignored-Upgrade"

_END: Final = b"\r\n\r\n"
_BEGUN: Final = re.compile(rb"\r(?:\n(?:\r|u(?:p(?:g(?:r(?:a(?:de?)?)?)?)?)?)?)?\Z", re.IGNORECASE)
"""What may become an offer or the end of the headers with the next bytes."""


class UpgradeFilter:
    """Renames the header of that name; all else passes as it is."""

    def __init__(self) -> None:
        self._held = b""
        self.expect_headers()

    def expect_headers(self) -> None:
        """The request is over: what comes next are the headers of another one."""
        self._in_headers = True
        self._begun = False

    def pass_on(self, data: bytes) -> bytes:
        """Return what is to be parsed now; a few bytes may have to wait for those after them."""
        if not self._in_headers:
            return data
        if not self._begun:
            # Empty lines before a request are none of it (RFC 9112, 2.2).
            data = data.lstrip(b"\r\n")
            self._begun = bool(data)
        data, self._held = self._held + data, b""
        end = data.find(_END)
        if end >= 0:
            self._in_headers = False
            return _OFFER.sub(_IGNORED, data[:end]) + data[end:]
        begun = _BEGUN.search(data)
        if begun:
            data, self._held = data[: begun.start()], data[begun.start() :]
        return _OFFER.sub(_IGNORED, data)
