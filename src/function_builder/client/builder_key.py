"""A builder's key for build secrets: asked for with a proof, and compared before they are sent."""

import secrets as randomness
from collections.abc import Mapping

import httpx2

from function_builder.client.answers import read_refusal
from function_builder.client.errors import ContextError, Refused
from function_builder.client.sealing import read_public_key
from function_builder.contract.answer_signature import public_key_answer
from function_builder.contract.secrets import key_id, sealed_for

_BUILD_PATH = "/build"
_KEY_PATH = "/publickey"


class KeyQuestion:
    """One `GET /publickey`, and what its answer proves.

    Args:
        build_url: where builds go; the key is beside it.
        payload_secret: what signs the answer; None: nothing does.
        required: whether an answer without a signature is refused.
    """

    def __init__(
        self, build_url: httpx2.URL, payload_secret: bytes | None, *, required: bool
    ) -> None:
        self._nonce = randomness.token_urlsafe(24)
        self._secret = payload_secret
        self._required = required
        path = build_url.path.rstrip("/").removesuffix(_BUILD_PATH) + _KEY_PATH
        self.url = build_url.copy_with(path=path).copy_merge_params({"nonce": self._nonce})

    def key(self, status: int, headers: Mapping[str, str], body: bytes) -> str:
        """The key in base64.

        Raises:
            Refused: the builder has none, or the answer is not proven to be a builder's.
        """
        if status != httpx2.codes.OK:
            raise read_refusal(status, headers, body)
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
