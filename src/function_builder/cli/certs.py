"""The command `function-builder certs`: certificates for BuildKit over TCP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from function_builder.cli.authority import Authority, AuthorityError
from function_builder.cli.failing import failing_with

_HOSTS: Final = ("buildkitd", "localhost", "127.0.0.1")


def certs(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The directory to write them to.")
    ],
    *,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name or address under which the builder reaches BuildKit; may be repeated. "
            f"[default: {', '.join(_HOSTS)}]",
        ),
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, max=3650, help="How long the certificates are valid.")
    ] = 365,
) -> None:
    """Make the certificates with which the builder and a BuildKit on TCP authenticate each other.

    To renew them, run this again in the same directory: the same authority signs the new ones. Copy
    them over the old ones. The builder reads its own at the next build, BuildKit at its next start.

    \b
      function-builder certs certs --host buildkitd.openfaas
      buildkitd --addr tcp://0.0.0.0:1234 --tlscacert certs/server/ca.crt \\
        --tlscert certs/server/server.crt --tlskey certs/server/server.key
      function-builder serve --buildkit-url tcp://buildkitd.openfaas:1234 \\
        --tlscacert certs/client/ca.crt --tlscert certs/client/client.crt \\
        --tlskey certs/client/client.key
    """
    server, client = directory / "server", directory / "client"
    with failing_with(AuthorityError, ValueError):
        authority = _authority(directory / "ca.crt", directory / "ca.key")
        authority.issue_server(host or _HOSTS, server / "server.crt", server / "server.key", days)
        authority.issue_client(
            "function-builder", client / "client.crt", client / "client.key", days
        )
        for place in (server, client):
            authority.write_certificate(place / "ca.crt")
    typer.echo(f"{client}/  for the builder, which looks for it in /var/secrets/certs")
    typer.echo(f"{server}/  for BuildKit")
    typer.echo(
        f"{directory / 'ca.key'}  for neither: store it elsewhere, because it signs the next ones"
    )


def _authority(certificate: Path, key: Path) -> Authority:
    if key.exists():
        return Authority.load(certificate, key)
    authority = Authority.create()
    authority.write(certificate, key)
    return authority
