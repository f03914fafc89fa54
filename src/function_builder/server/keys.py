"""The builder's own secrets, read from their files for each request: rotation needs no restart."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from function_builder.contract import answer_signature
from function_builder.contract.derived import derived_key
from function_builder.contract.errors import Refusal
from function_builder.contract.secrets import ALGORITHM, SecretsKey
from function_builder.contract.text import dump_json
from function_builder.settings import Settings

if TYPE_CHECKING:
    from function_builder.queue.webhooks import CallbackKeys

OPEN_DOMAIN: Final = "open"
"""The trust domain of a builder with `disable_hmac`."""

MIN_SECRET_BYTES: Final = 6
"""A shorter payload secret is refused, because it can be guessed from one signed request.

pro-builder accepts any length. A higher bound would refuse secrets that work there."""

ADVISED_SECRET_BYTES: Final = 16
"""A shorter payload secret causes a warning at the start."""

_NONCE = re.compile(r"[A-Za-z0-9_-]{1,128}")


class KeyFileError(Exception):
    """A key's file is absent, empty or malformed; the text is for the operator."""


def payload_secrets(
    directory: Path, read: Callable[[Path], bytes] = Path.read_bytes
) -> list[bytes]:
    """The accepted payload secrets, the current one first.

    Args:
        directory: contains the files.
        read: reads one of them.

    Raises:
        KeyFileError: `payload-secret` cannot be read, is empty, or is too short.
    """
    path = directory / "payload-secret"
    try:
        current = read(path).strip()
    except OSError as error:
        raise KeyFileError(
            f"the payload secret cannot be read: {path}: {error.strerror}"
        ) from error
    if not current:
        raise KeyFileError(f"the payload secret is empty: {path}")
    if len(current) < MIN_SECRET_BYTES:
        raise KeyFileError(
            f"the payload secret has {len(current)} bytes, at least {MIN_SECRET_BYTES} are needed,"
            f" 32 are better: {path}"
        )
    try:
        previous = read(directory / "payload-secret-previous").strip()
    except OSError:
        previous = b""
    return [current, previous] if previous else [current]


def callback_keys(settings: Settings) -> CallbackKeys:
    """The keys that sign callbacks: of `webhook-secret`, `webhook-secret-previous`, and more.

    Raises:
        KeyFileError: a file cannot be read or is malformed.
    """
    # Loaded here, because a builder that sends no callbacks does not need it.
    from function_builder.queue.webhooks import CallbackKeys  # noqa: PLC0415 (only with callbacks)

    directory = settings.secret_mount_path
    keys = [_webhook_key(directory / "webhook-secret")]
    previous = directory / "webhook-secret-previous"
    if previous.exists():
        keys.append(_webhook_key(previous))
    return CallbackKeys(keys, None if settings.disable_hmac else payload_secrets(directory)[0])


def _webhook_key(path: Path) -> bytes:
    from function_builder.queue.webhooks import parse_secret  # noqa: PLC0415 (as above)

    try:
        return parse_secret(path.read_bytes().decode("ascii", "replace").strip())
    except OSError as error:
        raise KeyFileError(
            f"the webhook secret cannot be read: {path}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise KeyFileError(f"the webhook secret {error}: {path}") from error


def trust_domain(secret: bytes) -> str:
    """The name of a payload secret inside the builder, derived from it; clients never see it."""
    return derived_key(secret, "trust domain").hex()


def credential_id(settings: Settings, secret: bytes) -> str:
    """The name of a payload secret in the audit log; empty if there is no audit log.

    The secret cannot be computed from it.
    """
    if not settings.audit_log:
        return ""
    return f"secret:{derived_key(secret, 'credential id').hex()[:8]}"


def secrets_key(path: str) -> SecretsKey | None:
    """The key that decrypts build secrets; None if none is configured.

    Raises:
        KeyFileError: the file cannot be read or is malformed.
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


def signing_secrets(settings: Settings) -> list[bytes]:
    """The payload secrets that may have signed a request; empty with `disable_hmac`.

    Raises:
        Refusal: 503.
    """
    if settings.disable_hmac:
        return []
    try:
        return payload_secrets(settings.secret_mount_path)
    except KeyFileError as error:
        raise unavailable("its payload secret") from error


def unsealing_key(settings: Settings) -> SecretsKey | None:
    """The key that decrypts build secrets; None if none is configured.

    Raises:
        Refusal: 503.
    """
    try:
        return secrets_key(settings.build_secrets_private_key_path)
    except KeyFileError as error:
        raise unavailable("its key for build secrets") from error


def tenant_domain(secret: bytes, tenant: str) -> str:
    """The name of a tenant inside the builder, derived from the builder's own payload secret.

    It does not depend on the tenant's secrets, so the tenant keeps its caches when they rotate. No
    tenant can compute it.
    """
    return derived_key(derived_key(secret, "tenants"), tenant).hex()


def public_key_answer(
    settings: Settings, nonce: str | None, secret: Callable[[], bytes | None]
) -> bytes:
    """The answer to `GET /publickey`, signed if its client gave a nonce.

    Args:
        settings: the builder's, with the tenant's own values.
        nonce: the client's; None: it sent none.
        secret: reads the payload secret that signs the answer.

    Raises:
        Refusal: 400, 404 or 503.
    """
    if nonce is not None and not _NONCE.fullmatch(nonce):
        raise Refusal(400, "nonce must be 1 to 128 letters, digits, - or _")
    key = unsealing_key(settings)
    if key is None:
        raise Refusal(404, "this builder has no key for build secrets")
    answer = dump_json({"key_id": key.key_id, "algorithm": ALGORITHM, "public_key": key.public})
    if nonce is None or (signing := secret()) is None:
        return answer
    return answer_signature.public_key_answer(signing, nonce).end(answer)


def unavailable(what: str) -> Refusal:
    """The refusal of a request that needs a key that cannot be read."""
    return Refusal(503, f"the builder cannot read {what}: this is not your fault")
