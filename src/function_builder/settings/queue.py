"""Builds that outlive their connection: NATS, the store, and how long both keep a build."""

from __future__ import annotations

from dataclasses import dataclass

from function_builder.settings import values
from function_builder.settings.values import setting


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    """A part of `Settings`."""

    nats_url: str = setting(
        "nats_url",
        values.nats,
        "",
        """Where queued builds are kept: `embedded` (a nats-server of the builder's own), or NATS
        with JetStream, `nats://host:port` or `tls://host:port`; several, separated by commas, are
        one cluster. Needs the extra `queue`. Empty: no build outlives its connection.""",
        secret=True,
    )
    nats_credentials_file: str = setting(
        "nats_credentials_file",
        values.text,
        "",
        "The file of the user's JWT and NKey seed for NATS, as `nsc` writes it. Empty: none.",
    )
    nats_nkey_seed_file: str = setting(
        "nats_nkey_seed_file",
        values.text,
        "",
        "The file of the user's NKey seed for NATS, if there is no JWT. Empty: none.",
    )
    nats_ca_file: str = setting(
        "nats_ca_file",
        values.text,
        "",
        "The CA that signed the certificate of NATS. Empty: the system's, if the URL has tls.",
    )
    nats_cert_file: str = setting(
        "nats_cert_file", values.text, "", "The builder's certificate for NATS. Empty: none."
    )
    nats_key_file: str = setting("nats_key_file", values.text, "", "That certificate's key.")
    nats_replicas: int = setting(
        "nats_replicas",
        values.replicas,
        1,
        """On how many servers of the NATS cluster each queued build is kept: 1, 3 or 5. With 1, a
        lost disk of that server loses builds that were accepted.""",
    )
    max_queued: int = setting(
        "max_queued",
        values.count,
        10_000,
        """The most builds in the queue, over all builders: those that wait, and those of them that
        run. Another one is refused with 429, before its body is stored. 0: no limit.""",
    )
    store_url: str = setting(
        "store_url",
        values.text,
        "",
        """Where bodies of queued builds and logs of ended ones are kept: `file:///DIRECTORY` or
        `s3://BUCKET/PREFIX`. All builders of one queue need the same. Empty: beside the embedded
        queue.""",
    )
    lost_after: float = setting(
        "lost_after",
        values.silence,
        30.0,
        """How long a builder may be silent before another one starts its queued builds again. A
        synchronous build has failed if its builder was silent for four times as long. All builders
        of one queue need the same; at least 1s.""",
    )
    history: float = setting(
        "history",
        values.seconds,
        7 * 86400.0,
        "How long a build and its log are kept after the last change.",
    )
    keep_bodies: float = setting(
        "keep_bodies",
        values.seconds,
        3600.0,
        """How long the body of an ended build is kept, so that it can be built again. 0: it is
        deleted when the build has ended.""",
    )
    max_store_bytes: int = setting(
        "max_store_bytes",
        values.size,
        0,
        """The most bytes of logs and of bodies of ended builds in the store. Beyond it, the oldest
        are deleted. 0: no limit.""",
    )
    web: bool = setting(
        "web",
        values.flag,
        False,
        """Whether the builder has web pages of the builds, at `/`. They show the builds of the
        queue (`nats_url`). `function-builder web` prints a link that signs a browser in.""",
    )
    web_url: str = setting(
        "web_url",
        values.text,
        "",
        """The URL at which browsers reach the builder, such as `https://builder.example.com`, for
        `web_oidc_issuer`. The issuer must know `/web/oidc-callback` below it as a redirect URI.""",
    )
    web_oidc_issuer: str = setting(
        "web_oidc_issuer",
        values.text,
        "",
        """The URL of an OIDC issuer at which browsers sign in. Its ID tokens must be those of a
        tenant, with `web_oidc_client_id` as the audience. Empty: browsers sign in with tokens.""",
    )
    web_oidc_client_id: str = setting(
        "web_oidc_client_id", values.text, "", "The builder's client ID at `web_oidc_issuer`."
    )
    web_oidc_client_secret_file: str = setting(
        "web_oidc_client_secret_file",
        values.text,
        "",
        """The file of the builder's client secret at `web_oidc_issuer`. Empty: it is a public
        client.""",
    )
    web_oidc_scope: str = setting(
        "web_oidc_scope",
        values.text,
        "openid profile email",
        "The scopes to request at `web_oidc_issuer`, for the claims of the tenants file.",
    )
