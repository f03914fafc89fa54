"""The builder's own secrets, read from their files for each request: rotation needs no restart."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from function_builder.contract.errors import Refusal
from function_builder.contract.secrets import SecretsKey

OPEN_DOMAIN = "open"
"""The trust domain of a builder that asks for no signature."""


class KeyFileError(Exception):
    """A key's file is absent, empty or malformed; the text is for the operator."""


def payload_secrets(directory: Path) -> list[bytes]:
    """The payload secrets that are accepted, the one in force first.

    Raises:
        KeyFileError: `payload-secret` cannot be read, or holds nothing.
    """
    path = directory / "payload-secret"
    try:
        current = path.read_bytes().strip()
    except OSError as error:
        raise KeyFileError(
            f"the payload secret cannot be read: {path}: {error.strerror}"
        ) from error
    if not current:
        raise KeyFileError(f"the payload secret is empty: {path}")
    try:
        previous = (directory / "payload-secret-previous").read_bytes().strip()
    except OSError:
        previous = b""
    return [current, previous] if previous else [current]


def trust_domain(secret: bytes) -> str:
    """A name for everybody who signs with a payload secret, from which it cannot be found."""
    return hmac.new(secret, b"function-builder trust domain", hashlib.sha256).hexdigest()[:32]


def secrets_key(path: str) -> SecretsKey | None:
    """The key that opens build secrets; None where none is configured.

    Raises:
        KeyFileError: the file cannot be read, or holds no key.
    """
    if not path:
        return None
    try:
        return SecretsKey.parse(Path(path).read_bytes())
    except OSError as error:
        raise KeyFileError(
            f"the build secrets' key cannot be read: {path}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise KeyFileError(f"the build secrets' key is malformed: {path}: {error}") from error


def unavailable(what: str) -> Refusal:
    """The answer to a request that needs a key which is not to be had just now."""
    return Refusal(503, f"the builder cannot read {what} just now: this is not your fault")
