"""The commands ``function-builder tenants``: the file of a builder's tenants."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import typer

from function_builder import tenants as package
from function_builder.cli.failing import failing_with
from function_builder.policy.sources import builder_policy
from function_builder.server import keys
from function_builder.tenants.adding import Added, Trusted, add_tenant
from function_builder.tenants.document import read_tenants
from function_builder.tenants.files import Files

_DEFAULT_SECRETS: Final = Path("/var/openfaas/secrets")

tenants = typer.Typer(
    no_args_is_help=True,
    help="Check and extend tenants_file, the file of a builder's tenants.",
)

_FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The tenants file.")]
_SecretsOption = Annotated[
    Path,
    typer.Option(
        envvar="secret_mount_path",
        metavar="DIR",
        help="Where the builder's own payload secret is, which no tenant may have.",
    ),
]


@tenants.command()
def check(
    file: _FileArgument,
    *,
    secrets: _SecretsOption = _DEFAULT_SECRETS,
    source_policy: Annotated[
        str,
        typer.Option(
            envvar="source_policy",
            metavar="FILE",
            help="The builder's own source policy, which a tenant's may narrow.",
        ),
    ] = "",
    buildkit_url: Annotated[
        str,
        typer.Option(
            envvar="buildkit_url",
            metavar="URL",
            help="The builder's own BuildKits, which no tenant may name as its own.",
        ),
    ] = "",
) -> None:
    """Check a tenants file: print its errors, with line and column, or its tenants.

    \b
      function-builder tenants check tenants.yaml
    """
    with failing_with(ValueError, keys.KeyFileError):
        own = keys.payload_secrets(secrets) if (secrets / "payload-secret").exists() else []
        policy = builder_policy(source_policy, local_sources=True)
        found = read_tenants(file, Files(), own, policy, buildkit_url)
    typer.echo(f"{file.name} is valid: {', '.join(sorted(found.by_name))}")


@tenants.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new tenant.")],
    *,
    file: Annotated[
        Path, typer.Option("--file", "-f", metavar="FILE", help="The tenants file.")
    ] = Path("tenants.yaml"),
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="A name under which the tenant alone reaches the builder; may be repeated.",
        ),
    ] = None,
    token: Annotated[bool, typer.Option("--token", help="Also make a bearer token.")] = False,
    oidc: Annotated[
        str,
        typer.Option(
            metavar="ISSUER",
            help="The URL of an OIDC issuer, whose tokens prove the tenant in place of a secret.",
        ),
    ] = "",
    audience: Annotated[
        str,
        typer.Option(metavar="AUDIENCE", help="The audience: a value of the tokens' claim aud."),
    ] = "",
    claim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A claim that the tokens have; repeat it for more claims, or more values of one.",
        ),
    ] = None,
) -> None:
    """Make a tenant's secrets, add it to the file, and print what the customer needs.

    \b
      function-builder tenants add acme --host acme.builder.example.com
      function-builder tenants add acme --oidc https://token.actions.githubusercontent.com \\
        --audience https://builder.example.com --claim repository_owner=acme
    """
    with failing_with(ValueError):
        trusted = _trusted(oidc, audience, claim or ())
        added = add_tenant(file, name, hosts=host or (), token=token, trusted=trusted)
    _print_added(file, name, host[0] if host else "", added, trusted)


def _trusted(issuer: str, audience: str, claims: Sequence[str]) -> Trusted | None:
    if not issuer and not audience and not claims:
        return None
    if not issuer or not audience or not claims:
        raise ValueError("--oidc, --audience and --claim belong together")
    found: dict[str, list[str]] = {}
    for text in claims:
        claimed, _, value = text.partition("=")
        if not claimed or not value:
            raise ValueError("a --claim must be NAME=VALUE, such as repository_owner=acme")
        found.setdefault(claimed, []).append(value)
    return Trusted(issuer, audience, found)


def _print_added(file: Path, name: str, host: str, added: Added, trusted: Trusted | None) -> None:
    url = f"https://{host}" if host else "https://YOUR-BUILDER"
    named = "" if host else f" --header 'X-Build-Tenant: {name}'"
    typer.echo(f"{file} has the tenant {name}. For the customer:")
    typer.echo(f"  URL             {url}")
    if not host:
        typer.echo(f"  header          X-Build-Tenant: {name}")
    if trusted:
        typer.echo(f"  OIDC token      of {trusted.issuer}")
        typer.echo(f"  its audience    {trusted.audience}")
    if added.secret is not None:
        typer.echo(f"  payload secret  {added.secret}")
    if added.token:
        typer.echo(f"  bearer token    {added.token}")
        typer.echo("                  (it is not stored: only its hash is in the file)")
    if added.secret is None:
        typer.echo(
            f"  function-builder build DIR --image IMAGE --url {url}"
            " --header 'Authorization: Bearer TOKEN'"
        )
        return
    if host:
        # Before 0.17.5, faas-cli posts to the URL as it is, and looks for stack.yml alone.
        typer.echo(
            f"  faas-cli publish -f stack.yaml --remote-builder {url}/build"
            f" --payload-secret {added.secret.name}"
        )
    typer.echo(
        f"  function-builder build DIR --image IMAGE --url {url}{named}"
        f" --payload-secret {added.secret.name}"
    )


@tenants.command()
def schema() -> None:
    """Print the JSON Schema of the file, for an editor.

    \b
      function-builder tenants schema > tenants.schema.json
    """
    typer.echo(resources.files(package).joinpath("schema.json").read_text(), nl=False)
