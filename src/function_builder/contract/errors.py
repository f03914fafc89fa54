"""The error for a request that the builder refuses.

Refusal has the HTTP status of the API's table, and a text for the client: the fault, the entry, and
how to correct it. It contains no path of the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

BUSY: Final = "Concurrent request limit exceeded."
"""The beginning of a 429, as in pro-builder; also the error of a stream that got no slot."""

_SHOWN = 160


class Refusal(Exception):
    """A request that is not built.

    Attributes:
        status: the HTTP status of the answer (400, 401, 408, 413, 415, 503, 507 …).
        reason: the answer's text, one line; also `str()`.
        headers: further fields of the answer.
        members: further members of the answer, if its form is a problem (RFC 9457).
    """

    headers: Mapping[str, str] = MappingProxyType({})
    members: Mapping[str, object] = MappingProxyType({})

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def shown(name: str) -> str:
    """An untrusted `name`, escaped for one line of an answer or a log.

    It is cut in the middle to about 160 characters. Control characters, line ends, characters that
    change the direction of text, and bytes that are not UTF-8 (surrogates) are escaped.
    """
    # Cut before escaping, so that a megabyte is not escaped, and after it, because escapes are
    # longer.
    escaped = "".join(letter if letter.isprintable() else _escaped(letter) for letter in _cut(name))
    return f'"{_cut(escaped)}"'


def _escaped(letter: str) -> str:
    is_byte = "\udc80" <= letter <= "\udcff"
    return f"\\x{ord(letter) - 0xDC00:x}" if is_byte else letter.encode("unicode_escape").decode()


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}"
