"""Derive a key for each use of a payload secret, so that the uses cannot affect each other.

Each is HMAC-SHA256 of a label, keyed by the payload secret or by a key derived from it. Neither its
parent nor another label's key can be computed from it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable


def derived_key(parent: bytes, label: str) -> bytes:
    """The key for one use, 32 bytes."""
    return hmac.digest(parent, f"function-builder {label}".encode(), "sha256")


def is_one_of(given: str, expected: Iterable[str]) -> bool:
    """Whether a token is one of the expected ones; the time does not tell which."""
    claimed = given.encode("utf-8", "replace")
    matches = [hmac.compare_digest(claimed, each.encode()) for each in expected]
    return any(matches)
