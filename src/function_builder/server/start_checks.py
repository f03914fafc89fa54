"""Checks of a builder's settings, before anything is started."""

from __future__ import annotations

import tempfile

import structlog

from function_builder.engine import EngineError, ensure_free
from function_builder.errors import StartError
from function_builder.oidc.trust import url_fault
from function_builder.server import keys
from function_builder.settings import EMBEDDED, Settings

_log = structlog.get_logger(__name__)


def check_start(settings: Settings) -> None:
    """Check the settings before anything else is started.

    Raises:
        StartError: a secret is absent, `spool_dir` cannot be written to, or a port is taken.
    """
    _check_secrets(settings)
    _check_spool(settings)
    if settings.nats_url not in ("", EMBEDDED) and not settings.store_url:
        raise StartError(
            "nats_url needs store_url: name the directory or bucket of bodies and logs, such as"
            " s3://BUCKET/PREFIX"
        )
    for address in (settings.listen, settings.metrics_listen):
        try:
            ensure_free(str(address))
        except EngineError as error:
            raise not_listening(error) from error


def _check_secrets(settings: Settings) -> None:
    try:
        keys.secrets_key(settings.build_secrets_private_key_path)
        if not settings.disable_hmac:
            length = len(keys.payload_secrets(settings.secret_mount_path)[0])
            if length < keys.ADVISED_SECRET_BYTES:
                _log.warning(
                    "the payload secret is short, so it may be guessed from a signed request:"
                    " use 16 bytes or more, such as `openssl rand -base64 32` makes",
                    bytes=length,
                )
        if settings.callback_hosts:
            keys.callback_keys(settings)
    except keys.KeyFileError as error:
        raise StartError(f"{error}: write it there, or set the path") from error
    if settings.disable_hmac and settings.tenants_file:
        raise StartError("tenants_file needs signatures: unset it, or disable_hmac")
    _check_sign_in(settings)
    if settings.disable_hmac and settings.replay_window:
        raise StartError("replay_window needs signatures: unset it, or disable_hmac")


def _check_sign_in(settings: Settings) -> None:
    if not settings.web_oidc_issuer:
        return
    if not settings.tenants_file or not settings.web_oidc_client_id:
        raise StartError("web_oidc_issuer needs tenants_file and web_oidc_client_id")
    for name in ("web_oidc_issuer", "web_url"):
        if fault := url_fault(getattr(settings, name)):
            raise StartError(f"{name} {fault}")


def _check_spool(settings: Settings) -> None:
    try:
        with tempfile.TemporaryFile(dir=settings.spool_dir):
            pass
    except OSError as error:
        raise StartError(
            f"spool_dir {settings.spool_dir} cannot be written to: {error.strerror}: "
            "name another directory, with room for request bodies"
        ) from error


def not_listening(error: EngineError) -> StartError:
    """The error of a port that cannot be opened."""
    return StartError(f"{error}: stop the program that uses it, or choose another address")
