"""The address of NATS, the credentials for it, and the reasons why it refuses a connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from nats.aio.client import Client
from nats.errors import Error as NATSError

from function_builder.queue.nkeys import NKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The address of NATS and the credentials; errors contain the settings' names.

    Attributes:
        url: one or several `nats://host:port` or `tls://…`, separated by commas.
        credentials: a file of a JWT and its NKey seed, as `nsc` writes it; empty: none.
        nkey_seed: a file of an NKey seed; empty: none.
        ca: a PEM file of the authority that signed the server's certificate; empty: the system's.
        cert: our certificate for the server; empty: none.
        key: that certificate's key.
    """

    url: str
    credentials: str = ""
    nkey_seed: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""

    def key_of_user(self) -> NKey | None:
        """The key in the configured file.

        Raises:
            ValueError: it cannot be read, or has no key.
        """
        path = self.credentials or self.nkey_seed
        name = "nats_credentials_file" if self.credentials else "nats_nkey_seed_file"
        try:
            key = NKey(path) if path else None
            if key is not None and self.credentials:
                key.jwt()
        except (OSError, ValueError) as error:
            raise ValueError(f"{name} cannot be used: {_words(error)}") from error
        return key

    def tls(self) -> ssl.SSLContext | None:
        """The TLS context; None if neither a URL nor a file requires TLS.

        Raises:
            ValueError: a file cannot be read, or has other content.
        """
        urls = self.url.split(",")
        if not (self.ca or self.cert or any(url.startswith("tls://") for url in urls)):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise ValueError(f"nats_ca_file cannot be used: {_words(error)}") from error
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key or None)
            except OSError as error:
                reason = _words(error)
                raise ValueError(
                    f"nats_cert_file and nats_key_file cannot be used: {reason}"
                ) from error
        return context


class NoTLSError(NATSError):
    """The server has no TLS."""

    def __str__(self) -> str:
        return "it has no TLS, which nats_url or nats_ca_file asks for"


class NATSClient(Client):
    """nats-py's client, which sends no credentials without TLS if TLS is required.

    In nats-py, the server decides whether to use TLS, for `tls://` too. A machine between them that
    changes the server's first line could read the password and all later messages.

    Attributes:
        key: the builder's key; None: the URL has the credentials, or there are none.
        needs_tls: whether a server without TLS is refused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.key: NKey | None = None
        self.needs_tls = False

    def _connect_command(self) -> bytes:
        if self.needs_tls and not self._server_info.get("tls_required"):
            raise NoTLSError
        if self.key is not None:
            # nats-py sends it if there is no JWT, but only sets it for `nkeys_seed`.
            self._public_nkey = self.key.public
        command: bytes = super()._connect_command()
        return command


def reason(error: Exception) -> str:
    """Why there is no connection, for an operator."""
    return refusal(error) or str(error) or "it does not answer"


def refusal(error: Exception) -> str:
    """Why another attempt would fail too; empty if it may succeed."""
    text = str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be verified: {error.verify_message}: check nats_ca_file"
    if "CERTIFICATE_REQUIRED" in text:
        return "it asks for a certificate: set nats_cert_file and nats_key_file"
    if "Authorization Violation" in text:
        return "it refuses the user: check the password, the NKey or the credentials"
    return text if isinstance(error, NoTLSError) else ""


def _words(error: Exception) -> str:
    """What is wrong with a file."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it has no certificate").lower().replace("_", " ")
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
