"""When a request was signed: `X-Build-Timestamp: <unix seconds> sha256=<hex HMAC-SHA256>`.

A body's signature does not expire: a party that recorded a request can send it again, and so
restore the image of last month. This header says when the request was signed. It is optional, and
old builders ignore it.

Its HMAC, with the payload secret, covers the text `<unix seconds> <value of X-Build-Signature>`. So
it binds the time to that body, but can be verified before the body arrives. It cannot be the
signature of a body, because a tar is longer than that text.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

TIMESTAMP_HEADER: Final = "X-Build-Timestamp"

# Decimals let one client send one body more than once in a second.
_VALUE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) sha256=([0-9a-f]{64})")


class Timestamp(NamedTuple):
    """A timestamp that is proven.

    Attributes:
        seconds: since the epoch, by the signer's clock.
        mac: its HMAC, which no other request has.
    """

    seconds: float
    mac: bytes


def stamp(secret: bytes, signature: str, seconds: float) -> str:
    """The header's value for a request whose `X-Build-Signature` is known."""
    text = f"{seconds:.6f}"
    return f"{text} sha256={_mac(secret, text, signature).hex()}"


def read_timestamp(
    header: str | None, signature: str | None, secrets: Sequence[bytes]
) -> Timestamp | None:
    """What the header's value proves, in constant time; None if it is absent or wrong.

    Args:
        header: the value of `X-Build-Timestamp`.
        signature: the value of `X-Build-Signature`, which the body has yet to match.
        secrets: the payload secrets that may have signed it.
    """
    match = _VALUE.fullmatch(header or "")
    if match is None or signature is None:
        return None
    claimed = bytes.fromhex(match[2])
    matches = [
        hmac.compare_digest(claimed, _mac(secret, match[1], signature)) for secret in secrets
    ]
    return Timestamp(float(match[1]), claimed) if any(matches) else None


def _mac(secret: bytes, text: str, signature: str) -> bytes:
    return hmac.digest(secret, f"{text} {signature}".encode("utf-8", "replace"), "sha256")
