"""A private certificate authority, for BuildKit's mutual TLS.

Source: RFC 5280 (the extensions that clients check), RFC 9525 (names in certificates).
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME: Final = timedelta(days=3650)

_CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far a clock may be behind, for a new certificate to be valid there at once."""

_CRITICAL: Final = True


class AuthorityError(Exception):
    """The directory does not have a valid authority; the text says why."""


class Authority:
    """A key that signs certificates, and its own certificate."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @classmethod
    def create(cls) -> Self:
        """A new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("function-builder CA")
        builder = (
            _certificate(name, name, key.public_key(), AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), _CRITICAL)
            .add_extension(_key_usage(signs_certificates=True), _CRITICAL)
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @classmethod
    def load(cls, certificate: Path, key: Path) -> Self:
        """One that was written before.

        Raises:
            AuthorityError: the files do not hold it.
            OSError: they cannot be read.
        """
        try:
            loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
            private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise AuthorityError(
                f"{certificate} and {key} are not a certificate and a key"
            ) from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise AuthorityError(f"{key} is not a key that this command wrote")
        if private.public_key() != loaded.public_key():
            raise AuthorityError(f"{key} is not the key of {certificate}")
        return cls(private, loaded)

    def write(self, certificate: Path, key: Path) -> None:
        """Write both, for `load`."""
        _write_key(key, self._key)
        self.write_certificate(certificate)

    def write_certificate(self, path: Path) -> None:
        """Write the certificate that others need to trust its signatures."""
        _replace(path, _pem(self._certificate), 0o644)

    def issue_server(self, hosts: Sequence[str], certificate: Path, key: Path, days: int) -> None:
        """Write a certificate, and its key, for a server of these names or addresses."""
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        self._issue(hosts[0], [names, usage], certificate, key, days)

    def issue_client(self, name: str, certificate: Path, key: Path, days: int) -> None:
        """Write a certificate, and its key, for a client."""
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        self._issue(name, [usage], certificate, key, days)

    def _issue(
        self,
        name: str,
        extensions: Sequence[x509.ExtensionType],
        certificate: Path,
        key: Path,
        days: int,
    ) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _certificate(
                _name(name), self._certificate.subject, private.public_key(), timedelta(days=days)
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), _CRITICAL)
            .add_extension(_key_usage(signs_certificates=False), _CRITICAL)
            .add_extension(signer, not _CRITICAL)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, not _CRITICAL)
        signed = builder.sign(self._key, hashes.SHA256())
        _write_key(key, private)
        _replace(certificate, _pem(signed), 0o644)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key that only its owner can read."""
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _replace(path, pem, 0o600)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), not _CRITICAL)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    # X.520 limits its length. Clients check the alternative names instead.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _host(host: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Replace a file atomically, so that no reader gets a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
