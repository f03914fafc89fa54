"""Who may build: the secrets that prove a request, and the hosts of callbacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from function_builder.contract.callback_url import CallbackHosts
from function_builder.settings import values
from function_builder.settings.values import setting


@dataclass(frozen=True, kw_only=True)
class AccessSettings:
    """A part of `Settings`."""

    secret_mount_path: Path = setting(
        "secret_mount_path",
        Path,
        Path("/var/openfaas/secrets"),
        """The directory of `payload-secret`, of `webhook-secret` if callbacks are sent, and of
        `payload-secret-previous` and `webhook-secret-previous` during a rotation.""",
    )
    tenants_file: str = setting(
        "tenants_file",
        values.text,
        "",
        """The file of the tenants, which is read again when it changes. Empty: all requests are
        those of one tenant, `default`.""",
    )
    audit_log: str = setting(
        "audit_log",
        values.text,
        "",
        """The file that gets one line of JSON for each decision about a request. `-` is standard
        output. Empty: no decision is logged there.""",
    )
    disable_hmac: bool = setting(
        "disable_hmac",
        values.flag,
        False,
        "Build for every client, without a signature. Only for a closed network.",
    )
    replay_window: float = setting(
        "replay_window",
        values.seconds,
        0.0,
        """How far the time in a request's X-Build-Timestamp may differ from the builder's clock. A
        request without this header, or one that was accepted before, is refused with 401. 0
        disables the check.""",
    )
    read_window: float = setting(
        "read_window",
        values.seconds,
        300.0,
        """How far the time in X-Build-Timestamp may differ from the builder's clock, in a request
        about builds such as `GET /builds`. The header is always required there.""",
    )
    build_secrets_private_key_path: str = setting(
        "build_secrets_private_key_path",
        values.text,
        "",
        """The file with the private key that decrypts sealed build secrets. Empty: requests with
        build secrets are refused.""",
    )
    callback_hosts: CallbackHosts = setting(
        "callback_hosts",
        CallbackHosts.parse,
        CallbackHosts(),
        """Hosts that callbacks may be sent to, comma separated: `hooks.example.com`,
        `*.example.org:8443`, or `*` for every name. Without a port: 80 and 443; with `:*`: every
        port. An address that is not public must be in a network of the list too, such as
        `10.0.0.0/8:8080`. Empty: no callbacks are sent.""",
    )
