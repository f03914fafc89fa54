"""TLS with the builder: trusted authorities, client certificates, and the meaning of errors."""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path
from typing import Final

_PLAIN_HTTP: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"}
)
"""OpenSSL's reasons for an answer that is not TLS, of all versions."""

_CLIENT_CERTIFICATE_ALERTS: Final = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "UNKNOWN_CA")

_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_UNTRUSTED: Final = frozenset({2, 18, 19, 20, 21})
"""X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, _DEPTH_ZERO_SELF_SIGNED_CERT, _SELF_SIGNED_CERT_IN_CHAIN,
_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, _UNABLE_TO_VERIFY_LEAF_SIGNATURE."""


def tls_context(
    *,
    cacert: str | Path | None = None,
    cert: str | Path | None = None,
    key: str | Path | None = None,
) -> ssl.SSLContext:
    """Make a context for `Client`.

    Args:
        cacert: a PEM file of the authorities to trust, instead of the system's.
        cert: a PEM file of a client certificate and its intermediate certificates.
        key: its private key; None if `cert` contains it.

    Raises:
        ValueError: a file cannot be read, or has other content.
    """
    context = _trusting(Path(cacert) if cacert is not None else None)
    if cert is not None:
        files = f"{cert} and {key}" if key is not None else f"{cert}"
        try:
            # Without a function for the password, OpenSSL would ask for it on the terminal.
            context.load_cert_chain(cert, key, password=lambda: b"")
        except ssl.SSLError as error:
            raise ValueError(f"{files}: not a certificate and its unencrypted key") from error
        except OSError as error:
            raise ValueError(f"cannot read {files}: {error.strerror}") from error
    elif key is not None:
        raise ValueError(f"{key} is a key without its certificate")
    return context


def _trusting(cacert: Path | None) -> ssl.SSLContext:
    named = cacert or _from_environment()
    if named is None:
        return _trusting_the_system()
    try:
        named.stat()  # OpenSSL's error names no file
        if named.is_dir():
            return ssl.create_default_context(capath=named)
        return ssl.create_default_context(cafile=named)
    except ssl.SSLError as error:
        raise ValueError(f"{named}: no certificate in PEM form") from error
    except OSError as error:
        raise ValueError(f"cannot read {named}: {error.strerror}") from error


def _trusting_the_system() -> ssl.SSLContext:
    paths = ssl.get_default_verify_paths()
    if sys.platform == "linux" and (paths.cafile or paths.capath):
        return ssl.create_default_context()
    # It also knows the places of authorities that OpenSSL was not made for.
    import httpx2

    return httpx2.create_ssl_context()


def _from_environment() -> Path | None:
    """The authorities that OpenSSL's own variables name."""
    value = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")
    return Path(value) if value else None


def tls_reason(error: ssl.SSLError) -> str:
    """The cause of a failed handshake, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_reason(error)
    reason = error.reason or ""
    if reason in _PLAIN_HTTP:
        return "the port answers without TLS: is it plain HTTP (http://)?"
    if any(alert in reason for alert in _CLIENT_CERTIFICATE_ALERTS):
        return "TLS: the server requires another client certificate (--cert, --key)"
    if isinstance(error, ssl.SSLEOFError):
        return "the server closed the connection during the TLS handshake"
    return f"TLS: {reason.replace('_', ' ').lower() or error}"


def _certificate_reason(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "TLS: the server's certificate has expired: its operator renews it"
    if error.verify_code in _UNTRUSTED:
        return (
            "TLS: the server's certificate is signed by an authority that this machine does not"
            " trust: name the authority's certificate (--cacert)"
        )
    return f"TLS: the server's certificate is not accepted: {error.verify_message}"
