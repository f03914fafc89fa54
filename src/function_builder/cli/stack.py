"""The directory and the addresses of `up`, with its secrets and its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiobuildkit.hostport import HostPort
from function_builder.contract.secrets import SecretsKey
from function_builder.engine import BuildKitNetwork, EngineError, ensure_free
from function_builder.queue.webhooks import format_secret

_ANOTHER: Final = "--state-dir (make up state_dir=DIR) names another"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What `up` runs.

    Attributes:
        listen: the builder's `host:port`.
        metrics_listen: its metrics'.
        registry_listen: the registry's.
        state: the directory of all files.
        buildkit_network: BuildKit's.
        example: the directory that is built first.
    """

    listen: str
    metrics_listen: str
    registry_listen: str
    state: Path
    buildkit_network: BuildKitNetwork
    example: Path

    @property
    def secret_file(self) -> Path:
        """The secret that signs requests."""
        return self.state / "payload-secret"

    @property
    def secrets_key_file(self) -> Path:
        """The private key that opens build secrets; the public one has .pub after it."""
        return self.state / "build-secrets.key"

    @property
    def image(self) -> str:
        """The image of the example."""
        return f"{self.registry}/{self.example.name}:latest"

    @property
    def url(self) -> str:
        """The builder's URL on this machine."""
        return f"http://{HostPort.parse(self.listen).local}"

    @property
    def registry(self) -> str:
        """The registry's `host:port` in the names of images."""
        return str(HostPort.parse(self.registry_listen).local)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory, and lock it against another `up`.

        Raises:
            EngineError: it cannot be made, or another `up` uses it.
        """
        state = self.state
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (state / "lock").open("w")
        except OSError as error:
            raise EngineError(f"{state} cannot be used: {error.strerror}: {_ANOTHER}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EngineError(f"another `up` runs in {state}: {_ANOTHER}") from None
            yield

    def make_secrets(self) -> None:
        """Make the secrets and keys that are not there yet."""
        key = SecretsKey.generate()
        _write_new(self.secret_file, secrets.token_urlsafe(32).encode())
        _write_new(self.state / "webhook-secret", format_secret(secrets.token_bytes(32)).encode())
        if _write_new(self.secrets_key_file, key.to_text()):
            self.secrets_key_file.with_name(f"{self.secrets_key_file.name}.pub").write_text(
                key.public
            )

    def check_addresses(self) -> None:
        """Check that the ports are free.

        Raises:
            EngineError: one is not, or is not an address.
        """
        for option in ("registry_listen", "listen", "metrics_listen"):
            address = getattr(self, option)
            flag = f"--{option.replace('_', '-')}"
            try:
                ensure_free(address)
            except ValueError as error:
                raise EngineError(f"{flag}={address}: {error}") from None
            except EngineError as error:
                raise EngineError(
                    f"{error}: {flag} (make up {option}=HOST:PORT) names another"
                ) from None


def _write_new(path: Path, content: bytes) -> bool:
    """Write a private file; return False if it exists."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return True
