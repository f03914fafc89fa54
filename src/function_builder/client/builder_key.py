"""A builder's key for build secrets: requesting it, and comparing it before secrets are sent."""

from __future__ import annotations

import secrets as randomness

from function_builder.client.errors import ContextError, Refused
from function_builder.client.sealing import read_public_key
from function_builder.contract.answer_signature import public_key_answer
from function_builder.contract.secrets import key_id, sealed_for


class KeyQuestion:
    """One `GET /publickey`, and the proof in its answer.

    Args:
        payload_secret: the secret that signs the answer; None: it is not signed.
        required: whether an answer without a signature is refused.

    Attributes:
        path: of the request.
        params: its query.
    """

    path = "/publickey"

    def __init__(self, payload_secret: bytes | None, *, required: bool) -> None:
        self._nonce = randomness.token_urlsafe(24)
        self._secret = payload_secret
        self._required = required
        self.params = {"nonce": self._nonce}

    def key(self, status: int, body: bytes) -> str:
        """The key in base64.

        Raises:
            Refused: the answer has no key, or is not proven to be a builder's.
        """
        right = None
        if self._secret is not None:
            right = public_key_answer(self._secret, self._nonce).proves(body)
        if right is False or (right is None and self._required):
            raise Refused(
                status,
                "the payload secret did not sign the public key, so that another server may have "
                "given it: use https, or get the key from the builder's operator",
                from_builder=False,
            )
        try:
            return read_public_key(body)
        except ValueError as error:
            raise Refused(status, str(error), from_builder=False) from error


def check_sealed(sealed: bytes, public_key: str) -> None:
    """Refuse to send secrets that were sealed for another key, whose owner could open them.

    By the key's id, its first 48 bits; an envelope without an id is not refused.

    Raises:
        ContextError: they were.
    """
    found, expected = sealed_for(sealed), key_id(public_key)
    if found and found != expected:
        raise ContextError(
            f"the secrets were sealed for key {found!r}, and the builder's key is {expected!r}: "
            "seal them again with the builder's key (function-builder secret public-key)"
        )
