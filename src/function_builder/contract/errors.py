"""What the builder answers to a request that it will not build.

Refusal carries the HTTP status of the API's table and a text for the sender of the request: what is
wrong, in which entry, and how to mend it. It never names a path of the server.
"""

from typing import Final

BUSY: Final = "Concurrent request limit exceeded."
"""How a 429 begins, in pro-builder's words; a stream whose build never had a slot ends with it."""

_SHOWN = 160


class Refusal(Exception):
    """A request that cannot become a build.

    Attributes:
        status: the HTTP status of the answer (400, 401, 408, 413, 415, 503, 507 …).
        reason: the answer's text, one line, also what `str()` gives.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def shown(name: str) -> str:
    """`name`, which a stranger chose, fit for one line of an answer or a log.

    Cut in its middle to about 160 characters. Control characters, line ends, characters that turn
    the direction of writing and bytes that are not UTF-8 (surrogates) are escaped.
    """
    # First, so that no megabyte is escaped, and then, because escapes are longer.
    escaped = "".join(letter if letter.isprintable() else _escaped(letter) for letter in _cut(name))
    return f'"{_cut(escaped)}"'


def _escaped(letter: str) -> str:
    is_byte = "\udc80" <= letter <= "\udcff"
    return f"\\x{ord(letter) - 0xDC00:x}" if is_byte else letter.encode("unicode_escape").decode()


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}"
