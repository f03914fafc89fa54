"""NKeys: a client authenticates to NATS with an Ed25519 key, with or without a JWT.

nats-py does this with `nkeys`, which has no wheel. PyNaCl, which opens build secrets, can sign too.
The encoding is that of nats-io/nkeys: a prefix, 32 bytes and a CRC, in base32.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

_USER_PREFIX: Final = 20 << 3
_SEED = re.compile(r"\bSU[A-Z2-7]{56}\b")
_JWT = re.compile(r"-----BEGIN NATS USER JWT-----\s+(\S+)\s+------?END NATS USER JWT-----")


class NKey:
    """A user's key in a file, which is read for each connection.

    Args:
        path: a file with only a seed, or with a JWT and a seed, as `nsc` writes it.

    Raises:
        OSError: it cannot be read.
        ValueError: it has no user's seed.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.public = self._encoded_public(self._key())

    def sign(self, nonce: str) -> bytes:
        """The signature of the server's nonce, in base64."""
        return base64.b64encode(self._key().sign(nonce.encode()).signature)

    def jwt(self) -> bytes:
        """The user's JWT.

        Raises:
            ValueError: the file has no JWT.
        """
        found = _JWT.search(self._path.read_text())
        if found is None:
            raise ValueError("the credentials hold no JWT of a user")
        return found[1].encode()

    def _key(self) -> SigningKey:
        found = _SEED.search(self._path.read_text())
        if found is None:
            raise ValueError("there is no NKey seed of a user (SU…) in it")
        raw = base64.b32decode(found[0] + "=" * (-len(found[0]) % 8))
        # CRC-16/XMODEM, low byte first.
        if binascii.crc_hqx(raw[:-2], 0) != int.from_bytes(raw[-2:], "little"):
            raise ValueError("its NKey seed is damaged")
        return SigningKey(raw[2:-2])

    @staticmethod
    def _encoded_public(key: SigningKey) -> str:
        data = bytes([_USER_PREFIX]) + bytes(key.verify_key)
        crc = binascii.crc_hqx(data, 0).to_bytes(2, "little")
        return base64.b32encode(data + crc).decode().rstrip("=")
