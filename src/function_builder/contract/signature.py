"""The signature of a request: `X-Build-Signature: sha256=<hex HMAC-SHA256 of the whole body>`."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final

SIGNATURE_HEADER: Final = "X-Build-Signature"
_PREFIX: Final = "sha256="


def sign(secret: bytes, body: bytes) -> str:
    """Sign a complete body; return the header's value."""
    signature = Signature([secret])
    signature.update(body)
    return signature.value()


class Signature:
    """The signature of a body that arrives, or is read, in pieces.

    Args:
        secrets: the payload secrets that may have signed it, without surrounding white space;
            several during a rotation.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets or not all(secrets):
            raise ValueError("a signature needs a payload secret that is not empty")
        self._secrets = secrets
        self._macs = [hmac.new(secret, digestmod="sha256") for secret in secrets]

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Add the body's next bytes."""
        for mac in self._macs:
            mac.update(chunk)

    def value(self) -> str:
        """The header's value under the first secret."""
        return _PREFIX + self._macs[0].hexdigest()

    def matches(self, header: str | None) -> bool:
        """Whether a header's value is correct for one of the secrets, in constant time."""
        return self.signer(header) is not None

    def signer(self, header: str | None) -> bytes | None:
        """The secret for which a header's value is correct, in constant time; None without one."""
        if header is None or not header.startswith(_PREFIX):
            return None
        claimed = header.removeprefix(_PREFIX).strip().lower().encode("utf-8", "replace")
        # Every secret is tried, so that the time does not depend on which one matched.
        matches = [hmac.compare_digest(claimed, mac.hexdigest().encode()) for mac in self._macs]
        return self._secrets[matches.index(True)] if any(matches) else None
