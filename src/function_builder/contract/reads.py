"""The proof of a request without a body: its signature, or one build's token.

`X-Build-Signature` is the HMAC of the request line without the protocol, method, space and target
as sent: `GET /builds?limit=5`. `X-Build-Timestamp` binds it to a time, as for a body
(`contract/timestamp.py`), and is required. No such text is a tar, so no signature of a body can be
one of these.

A build's token names its tenant, unless that is `default`.
It is derived from the payload secret and the build's id. Each replica can check it,
and it is stored nowhere. It is valid until the payload secret has rotated out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.derived import derived_key, is_one_of
from function_builder.contract.signature import SIGNATURE_HEADER, Signature, sign
from function_builder.contract.timestamp import TIMESTAMP_HEADER, stamp

_TOKEN_PREFIX: Final = "fbt_"  # noqa: S105 (it is how a token begins)
"""Lets scanners for leaked secrets find one."""


def read_text(method: str, target: str) -> bytes:
    """The text that a read's signature covers.

    Args:
        method: such as GET.
        target: path and query, as they are sent.
    """
    return f"{method} {target}".encode("utf-8", "replace")


def sign_read(secret: bytes, method: str, target: str, now: float) -> dict[str, str]:
    """The headers that prove a request without a body; `now` in seconds since the epoch."""
    signature = sign(secret, read_text(method, target))
    return {SIGNATURE_HEADER: signature, TIMESTAMP_HEADER: stamp(secret, signature, now)}


def read_signer(
    secrets: Sequence[bytes], method: str, target: str, header: str | None
) -> bytes | None:
    """The secret under which a read's `X-Build-Signature` is right; None if none is."""
    signature = Signature(secrets)
    signature.update(read_text(method, target))
    return signature.signer(header)


def build_token(secret: bytes, tenant: str, build_id: str) -> str:
    """The bearer token that opens one build for reading and cancelling."""
    key = derived_key(secret, "token of a build")
    named = "" if tenant == DEFAULT_TENANT else f"{tenant}_"
    return f"{_TOKEN_PREFIX}{named}{derived_key(key, f'{tenant}/{build_id}').hex()}"


def token_tenant(token: str) -> str | None:
    """The tenant that a build's token names; None if it is not a build's token."""
    if not token.startswith(_TOKEN_PREFIX):
        return None
    return token[len(_TOKEN_PREFIX) :].rpartition("_")[0] or DEFAULT_TENANT


def opens(token: str, secrets: Sequence[bytes], tenant: str, build_id: str) -> bool:
    """Whether a token is the build's under one of the secrets, in constant time."""
    return is_one_of(token, (build_token(secret, tenant, build_id) for secret in secrets))
