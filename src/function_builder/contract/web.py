"""The token that opens the web pages in a browser.

It is derived from the payload secret of a tenant, and from the time at which it expires. Each
replica can check it, and it is stored nowhere. It ends when that payload secret is rotated out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from function_builder.contract.derived import derived_key, is_one_of

_PREFIX: Final = "fbw_"
"""Lets scanners for leaked secrets find a token."""

_FORM: Final = re.compile(rf"{_PREFIX}([a-z0-9-]{{1,40}})_([0-9a-f]{{8,10}})_([0-9a-f]{{64}})")


class WebToken(NamedTuple):
    """What a token says of itself, proven or not.

    Attributes:
        text: the token.
        tenant: whose builds it opens.
        expires: until when, in seconds since the epoch.
    """

    text: str
    tenant: str
    expires: int

    def valid(self, secrets: Sequence[bytes], now: float) -> bool:
        """Whether it is the token of one of the tenant's payload secrets, and not expired."""
        made = (web_token(secret, self.tenant, self.expires) for secret in secrets)
        return is_one_of(self.text, made) and now < self.expires


def web_token(secret: bytes, tenant: str, expires: int) -> str:
    """The token of a tenant's payload secret that is valid until `expires`."""
    key = derived_key(secret, "token of the web pages")
    return f"{_PREFIX}{tenant}_{expires:08x}_{derived_key(key, f'{tenant}/{expires}').hex()}"


def parse_web_token(text: str) -> WebToken | None:
    """Read any text as a token; None if it cannot be one."""
    match = _FORM.fullmatch(text)
    return None if match is None else WebToken(text, match[1], int(match[2], 16))
