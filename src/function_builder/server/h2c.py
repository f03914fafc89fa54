"""Removes offers of HTTP/2 from requests before they are parsed.

curl with `--http2` and Java's HttpClient offer HTTP/2 with each request over plain HTTP (`Upgrade:
h2c`). A server may ignore the offer (RFC 9110, 7.8), as Go's does. But httptools then ends the
request after its headers, and parses the body as another request.
"""

from __future__ import annotations

import re
from typing import Final

_OFFER: Final = re.compile(rb"(?<=\r\n)upgrade(?=:)", re.IGNORECASE)
_IGNORED: Final = b"X-Ignored-Upgrade"

_END: Final = b"\r\n\r\n"
_BEGUN: Final = re.compile(rb"\r(?:\n(?:\r|u(?:p(?:g(?:r(?:a(?:de?)?)?)?)?)?)?)?\Z", re.IGNORECASE)
"""The beginning of an offer, or of the end of the headers, which later bytes may complete."""


class UpgradeFilter:
    """Renames the `Upgrade` header, and changes nothing else."""

    def __init__(self) -> None:
        self._held = b""
        self.expect_headers()

    def expect_headers(self) -> None:
        """Expect the headers of another request, because this one has ended."""
        self._in_headers = True
        self._begun = False

    def pass_on(self, data: bytes) -> bytes:
        """Return the bytes to parse now. The last few may wait for the bytes after them."""
        if not self._in_headers:
            return data
        if not self._begun:
            # Empty lines before a request are ignored (RFC 9112, 2.2).
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
