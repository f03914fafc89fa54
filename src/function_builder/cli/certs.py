"""The command `function-builder certs`: certificates for BuildKit over TCP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from function_builder.cli.authority import Authority, AuthorityError

_HOSTS: Final = ("buildkitd", "localhost", "127.0.0.1")


def certs(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them.")],
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
    """Make the certificates with which the builder and a BuildKit on TCP know each other.

    Once more in the same directory: the same authority signs new ones. Copy them to where the old
    ones are; the builder takes its own at the next build, BuildKit at its next start.

    \b
      function-builder certs certs --host buildkitd.openfaas
      buildkitd --addr tcp://0.0.0.0:1234 --tlscacert certs/server/ca.crt \\
        --tlscert certs/server/server.crt --tlskey certs/server/server.key
      function-builder serve --buildkit-url tcp://buildkitd.openfaas:1234 \\
        --tlscacert certs/client/ca.crt --tlscert certs/client/client.crt \\
        --tlskey certs/client/client.key
    """
    server, client = directory / "server", directory / "client"
    try:
        authority = _authority(directory / "ca.crt", directory / "ca.key")
        authority.issue_server(host or _HOSTS, server / "server.crt", server / "server.key", days)
        authority.issue_client(
            "function-builder", client / "client.crt", client / "client.key", days
        )
        for place in (server, client):
            authority.write_certificate(place / "ca.crt")
    except (AuthorityError, OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{client}/  for the builder, which looks for it in /var/secrets/certs")
    typer.echo(f"{server}/  for BuildKit")
    typer.echo(f"{directory / 'ca.key'}  for neither: keep it apart, it signs the next ones")


def _authority(certificate: Path, key: Path) -> Authority:
    if key.exists():
        return Authority.load(certificate, key)
    authority = Authority.create()
    authority.write(certificate, key)
    return authority
