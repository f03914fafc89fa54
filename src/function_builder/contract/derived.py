"""Derive a key for each use of a payload secret, so that the uses cannot affect each other.

Each is HMAC-SHA256 of a label, keyed by the payload secret or by a key derived from it. Neither its
parent nor another label's key can be computed from it.
"""

from __future__ import annotations

import hmac


def derived_key(parent: bytes, label: str) -> bytes:
    """The key for one use, 32 bytes."""
    return hmac.digest(parent, f"function-builder {label}".encode(), "sha256")
