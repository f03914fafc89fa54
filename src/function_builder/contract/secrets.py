"""Sealed build secrets: the tar's entry `com.openfaas.secrets`.

Each value is sealed with NaCl's box (Curve25519, XSalsa20, Poly1305) from an ephemeral key to the
builder's public key, and written as base64 of the 24-byte nonce followed by the box. Source: the
OpenFaaS Go SDK's `seal` package and `faas-cli secret seal`.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import yaml
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

from function_builder.contract.errors import Refusal, shown
from function_builder.contract.names import SECRETS_NAME
from function_builder.contract.text import foreign_encoding

ALGORITHM: Final = "nacl/box"
MAX_SECRETS_BYTES: Final = 1 << 20
MAX_SECRETS_LINES: Final = 1000
"""The most lines of all values, because each is searched in each line of the log to mask it."""
_KEY_ID_LENGTH = 8
_KEY_BYTES = 32

# libyaml's parser, if PyYAML has it. Only its events are used, because PyYAML's composer recurses,
# and the one in C crashes the process on a very deep document.
_Loader: type[yaml.BaseLoader] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_MAX_DEPTH = 4


@dataclass(frozen=True, slots=True, repr=False)
class SecretsKey:
    """The builder's private key, with its public key and ID."""

    private: PrivateKey

    @classmethod
    def parse(cls, text: bytes) -> SecretsKey:
        """Read base64 of 32 bytes, white space around it allowed.

        Raises:
            ValueError: it has another form; the message does not contain it.
        """
        return cls(PrivateKey(_key_bytes(text)))

    @classmethod
    def generate(cls) -> SecretsKey:
        """Make a new key."""
        return cls(PrivateKey.generate())

    def to_text(self) -> bytes:
        """The private key in the form of its file, which `parse` reads."""
        return base64.b64encode(bytes(self.private))

    @property
    def public(self) -> str:
        """The public key in base64."""
        return base64.b64encode(bytes(self.private.public_key)).decode()

    @property
    def key_id(self) -> str:
        """The first characters of the public key's base64."""
        return key_id(self.public)

    def __repr__(self) -> str:
        """A text without the private key."""
        return f"SecretsKey({self.key_id})"


def key_id(public_key: str) -> str:
    """A public key's ID, from its base64."""
    return public_key[:_KEY_ID_LENGTH]


def seal(values: Mapping[str, bytes], public_key: str) -> bytes:
    """Seal values for a builder's public key (base64); return the entry's bytes.

    Raises:
        ValueError: the public key is not base64 of 32 bytes.
    """
    receiver = PublicKey(_key_bytes(public_key.encode()))
    sender = PrivateKey.generate()
    box = Box(sender, receiver)
    document = {
        "version": "v1",
        "algorithm": ALGORITHM,
        "key_id": key_id(public_key.strip()),
        "public_key": base64.b64encode(bytes(sender.public_key)).decode(),
        "secrets": {
            name: base64.b64encode(box.encrypt(values[name])).decode() for name in sorted(values)
        },
    }
    text = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, indent=4, width=math.inf, allow_unicode=True
    )
    return text.encode()


def unseal(data: bytes, key: SecretsKey | None) -> dict[str, bytes]:
    """Decrypt the entry's values with the builder's key.

    Raises:
        Refusal: 400: the entry is malformed, there is no key, or a value cannot be decrypted. The
            message names the secret and the key IDs, but contains no value.
    """
    document = _load(data)
    if key is None:
        raise Refusal(400, f"{SECRETS_NAME}: this builder has no key for build secrets")
    box = _box(_text(document, "public_key"), key)
    sealed = document.get("secrets", {})
    if not isinstance(sealed, dict):
        raise Refusal(400, f"{SECRETS_NAME}: secrets must map names to sealed values")
    sealed_for = _text(document, "key_id")
    values = {name: _open(box, name, value, sealed_for, key) for name, value in sealed.items()}
    if sum(len(value.splitlines()) for value in values.values()) > MAX_SECRETS_LINES:
        raise Refusal(
            400,
            f"{SECRETS_NAME}: the secrets have more than {MAX_SECRETS_LINES} lines, too many to"
            " hide in the log: send a long file in base64, as one line",
        )
    return values


def sealed_for(data: bytes) -> str:
    """The ID of the key that values were sealed for; empty if the entry has none."""
    try:
        return _text(_load(data), "key_id")
    except Refusal:
        return ""


def _box(public_key: str, key: SecretsKey) -> Box:
    try:
        return Box(key.private, PublicKey(_key_bytes(public_key.encode())))
    except ValueError as error:
        raise Refusal(400, f"{SECRETS_NAME}: public_key is not base64 of 32 bytes") from error
    except CryptoError as error:
        # libsodium rejects a key of low order (RFC 7748, 6.1), because its shared secrets are
        # public.
        raise Refusal(400, f"{SECRETS_NAME}: public_key is not one that a key pair has") from error


def _open(box: Box, name: object, value: object, sealed_for: str, key: SecretsKey) -> bytes:
    if not isinstance(name, str) or not isinstance(value, str):
        raise Refusal(400, f"{SECRETS_NAME}: secrets must map names to sealed values")
    try:
        return bytes(box.decrypt(base64.b64decode(value, validate=True)))
    except (CryptoError, ValueError, TypeError) as error:
        hint = ""
        if sealed_for and sealed_for != key.key_id:
            hint = f": it was sealed for key {shown(sealed_for)}, and this key is"
            hint += f" {shown(key.key_id)}: seal it again with the builder's current key"
        problem = f"{SECRETS_NAME}: secret {shown(name)} cannot be decrypted{hint}"
        raise Refusal(400, problem) from error


def _load(data: bytes) -> dict[str, object]:
    if len(data) > MAX_SECRETS_BYTES:
        raise Refusal(400, f"{SECRETS_NAME}: larger than {MAX_SECRETS_BYTES} bytes")
    if encoding := foreign_encoding(data):
        raise Refusal(400, f"{SECRETS_NAME}: it is {encoding} text: save it as UTF-8")
    try:
        if any(line.startswith("%") for line in data.decode("utf-8-sig").splitlines()):
            raise ValueError("a directive")  # noqa: TRY301 (libyaml's time is their number squared)
        events = (e for e in yaml.parse(data, Loader=_Loader) if not isinstance(e, _FRAME))
        document = _compose(events, next(events, None), _MAX_DEPTH)
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        problem = f"{SECRETS_NAME}: not YAML, or YAML with aliases, tags or nesting"
        raise Refusal(400, problem) from error
    if not isinstance(document, dict):
        raise Refusal(400, f"{SECRETS_NAME}: must be a YAML mapping")
    if _text(document, "version") not in ("", "v1"):
        raise Refusal(400, f"{SECRETS_NAME}: version must be v1")
    if _text(document, "algorithm") not in ("", ALGORITHM):
        raise Refusal(400, f"{SECRETS_NAME}: algorithm must be {ALGORITHM}")
    return document


class _Dumper(yaml.SafeDumper):
    """Writes names of secrets exactly like Go's yaml.v3."""

    def choose_scalar_style(self) -> str:
        # Go uses double quotes if the text would be read as another type, such as yes or 1.
        style: str = super().choose_scalar_style()
        assert isinstance(self.event, yaml.ScalarEvent)
        return '"' if style == "'" and not self.event.implicit[0] else style


_FRAME = (
    yaml.StreamStartEvent,
    yaml.DocumentStartEvent,
    yaml.DocumentEndEvent,
    yaml.StreamEndEvent,
)


def _compose(events: Iterator[yaml.Event], event: yaml.Event | None, depth: int) -> object:
    """The value that begins with an event: strings, lists, dicts of strings.

    Raises:
        ValueError: an alias, a key that is not a string, or more than `depth` levels.
    """
    if isinstance(event, yaml.ScalarEvent):
        return event.value
    if not depth:
        raise ValueError("nested too deeply")
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[object] = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            items.append(_compose(events, item, depth - 1))
        return items
    if isinstance(event, yaml.MappingStartEvent):
        mapping: dict[str, object] = {}
        while isinstance(key := next(events), yaml.ScalarEvent):
            mapping[key.value] = _compose(events, next(events), depth - 1)
        if not isinstance(key, yaml.MappingEndEvent):
            raise ValueError("a key that is not a string")  # noqa: TRY004 (the YAML is wrong)
        return mapping
    raise ValueError("an alias")


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str):
        raise Refusal(400, f"{SECRETS_NAME}: {name} must be a string")
    return value


def _key_bytes(text: bytes) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("a key must be base64 of 32 bytes") from error
    if len(key) != _KEY_BYTES:
        raise ValueError("a key must be base64 of 32 bytes")
    return key
