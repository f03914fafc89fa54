"""An operator, an account and users of NATS, as `nsc` makes them.

The form: https://github.com/nats-io/jwt, version 2; the keys: https://github.com/nats-io/nkeys.
"""

import base64
import binascii
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from function_builder.engine import NatsServer

_SEED = 18 << 3
_PREFIXES = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_LIMITS = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
_JETSTREAM_LIMITS = ("mem_storage", "disk_storage", "streams", "consumer")
_NO_LIMITS = dict.fromkeys((*_LIMITS, *_JETSTREAM_LIMITS), -1)
# The system account, which a server with JetStream must have, may not use JetStream itself.
_NO_STORE = dict.fromkeys(_LIMITS, -1)


def configured(monkeypatch: pytest.MonkeyPatch, root: Path, **more: object) -> NatsServer:
    """A nats-server with this in place of parts of its configuration; None removes one."""
    server = NatsServer(root / "nats", log=root / "log")
    own = server._config

    def config() -> dict[str, object]:
        return {name: value for name, value in (own() | more).items() if value is not None}

    monkeypatch.setattr(server, "_config", config)
    return server


def _encoded(data: bytes) -> str:
    crc = binascii.crc_hqx(data, 0).to_bytes(2, "little")
    return base64.b32encode(data + crc).decode().rstrip("=")


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@dataclass
class Identity:
    """A key of NATS, and what it signs.

    Attributes:
        kind: `operator`, `account` or `user`.
    """

    kind: str
    _key: SigningKey = field(default_factory=SigningKey.generate)

    @property
    def public(self) -> str:
        return _encoded(bytes([_PREFIXES[self.kind]]) + bytes(self._key.verify_key))

    @property
    def seed(self) -> str:
        prefix = _PREFIXES[self.kind]
        return _encoded(bytes([_SEED | prefix >> 5, (prefix & 31) << 3]) + bytes(self._key))

    def jwt(self, of: "Identity", *, stores: bool = True) -> str:
        """A JWT that says who `of` is; an operator's is its own; `stores` if it has JetStream."""
        claims: dict[str, object] = {"type": of.kind, "version": 2}
        if of.kind == "account":
            claims["limits"] = (_NO_LIMITS if stores else _NO_STORE) | {"wildcards": True}
        elif of.kind == "user":
            claims |= {"subs": -1, "data": -1, "payload": -1}
        document = {
            "jti": of.public[:20],
            "iat": int(time.time()),
            "iss": self.public,
            "name": of.kind,
            "sub": of.public,
            "nats": claims,
        }
        header = _part(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
        signed = f"{header}.{_part(json.dumps(document).encode())}"
        return f"{signed}.{_part(self._key.sign(signed.encode()).signature)}"


@dataclass
class Operator:
    """An operator with one account, beside that of the system."""

    key: Identity = field(default_factory=lambda: Identity("operator"))
    account: Identity = field(default_factory=lambda: Identity("account"))
    system: Identity = field(default_factory=lambda: Identity("account"))

    def config(self) -> dict[str, object]:
        """What nats-server's configuration says of them."""
        return {
            "operator": self.key.jwt(self.key),
            "resolver": "MEMORY",
            "resolver_preload": {
                self.account.public: self.key.jwt(self.account),
                self.system.public: self.key.jwt(self.system, stores=False),
            },
            "system_account": self.system.public,
        }

    def credentials(self, path: Path) -> Path:
        """Write the credentials file of a new user."""
        user = Identity("user")
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{self.account.jwt(user)}\n"
            "------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )
        return path
