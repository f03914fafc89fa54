"""The signature of an answer: the last key of its last JSON object.

::

    …,"duration":4.21,"signature":"sha256=<hex HMAC-SHA256>"}

It covers each byte of the body before `,"signature":`, including all lines of a stream. Its key is
derived from the payload secret and the request, so a recorded answer is not valid for another
request, and a request's signature is not valid for an answer.

It is at the end of the body, because the answer is sent before it is complete. Clients that do not
know the key ignore it.
"""

from __future__ import annotations

import hmac
import re
from typing import Final

from function_builder.contract.derived import derived_key

_KEY: Final = b',"signature":"sha256='
SIGNATURE_BYTES: Final = len(_KEY) + 64 + len('"')
"""The bytes that a signature adds to its object."""

_END = re.compile(rb'(?s:(.*)),"signature":"sha256=([0-9a-f]{64})"\}\n?')


class AnswerSignature:
    """The signature of one answer, whose bytes arrive in pieces.

    Args:
        key: derived by `build_answer` or `public_key_answer`.
    """

    def __init__(self, key: bytes) -> None:
        self._mac = hmac.new(key, digestmod="sha256")

    def update(self, data: bytes) -> None:
        """Add bytes of the body before its last object."""
        self._mac.update(data)

    def end(self, last: bytes) -> bytes:
        """The last object with the signature; it ends with `}`, or with `}` and a newline."""
        head, brace, newline = last.rpartition(b"}")
        self._mac.update(head)
        return b'%b%b%b"%b%b' % (head, _KEY, self._mac.hexdigest().encode(), brace, newline)

    def proves(self, last: bytes) -> bool | None:
        """Whether the last object's signature is correct, in constant time; None without one."""
        match = _END.fullmatch(last)
        if match is None:
            return None
        self._mac.update(match[1])
        return hmac.compare_digest(match[2], self._mac.hexdigest().encode())


def build_answer(secret: bytes, signature: str, timestamp: str) -> AnswerSignature:
    """The signature of the answer to one request.

    Args:
        secret: the payload secret that signed the request.
        signature: its `X-Build-Signature`.
        timestamp: its `X-Build-Timestamp`, which makes requests of equal bodies differ; may be
            empty.
    """
    key = derived_key(secret, "answer to a build")
    return AnswerSignature(derived_key(key, f"{signature}\n{timestamp}"))


def public_key_answer(secret: bytes, nonce: str) -> AnswerSignature:
    """The signature of the answer to `GET /publickey?nonce=…`."""
    return AnswerSignature(derived_key(derived_key(secret, "public key"), nonce))
