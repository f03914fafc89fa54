"""The tokens that open the web pages in a browser. Each replica can check them, without a store.

The token of a link is derived from the payload secret of a tenant, and from the time at which it
expires. It ends when that payload secret is rotated out.

A session is what a browser gets for a bearer token. It is derived from the builder's own payload
secret, so that a tenant without a secret can have one. It names the bearer token's credentials, and
ends with them. A random part makes each session different, so that a sign-out ends one session.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from function_builder.contract.derived import derived_key, is_one_of

SESSION_SECONDS: Final = 12 * 3600.0
"""The longest session of a bearer token; a token that expires before it ends its session."""

_PREFIX: Final = "fbw_"
"""Lets scanners for leaked secrets find a token."""

_SESSION_PREFIX: Final = "fbs_"

_FORM: Final = re.compile(rf"{_PREFIX}([a-z0-9-]{{1,40}})_([0-9a-f]{{8,10}})_([0-9a-f]{{64}})")

_SESSION: Final = re.compile(
    rf"{_SESSION_PREFIX}([a-z0-9-]{{1,40}})_([0-9a-f]{{8,10}})_([0-9a-f.]{{8,400}})_([0-9a-f]{{16}})"
    r"_([0-9a-f]{64})"
)


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


class WebSession(NamedTuple):
    """What a session says of itself, proven or not.

    Attributes:
        text: the session.
        tenant: whose builds it opens.
        expires: until when, in seconds since the epoch.
        credentials: the ids of those that the browser had.
        number: 16 random hex digits.
    """

    text: str
    tenant: str
    expires: int
    credentials: tuple[str, ...]
    number: str

    def valid(self, secrets: Sequence[bytes], now: float) -> bool:
        """Whether one of the builder's own payload secrets made it, and it has not expired."""
        made = (
            web_session(secret, self.tenant, self.expires, self.credentials, self.number)
            for secret in secrets
        )
        return is_one_of(self.text, made) and now < self.expires


def web_session(
    secret: bytes, tenant: str, expires: int, credentials: Sequence[str], number: str
) -> str:
    """The session of a tenant that is valid until `expires`; the rest are hex digits."""
    key = derived_key(secret, "session of the web pages")
    said = f"{tenant}_{expires:08x}_{'.'.join(credentials)}_{number}"
    return f"{_SESSION_PREFIX}{said}_{derived_key(key, said).hex()}"


def parse_web_session(text: str) -> WebSession | None:
    """Read any text as a session; None if it cannot be one."""
    match = _SESSION.fullmatch(text)
    if match is None:
        return None
    return WebSession(text, match[1], int(match[2], 16), tuple(match[3].split(".")), match[4])
