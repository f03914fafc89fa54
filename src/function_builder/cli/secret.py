"""The commands `function-builder secret`: keys for build secrets, and sealed secrets.

They read and write the files of `faas-cli secret keygen|seal|unseal`, under the same options.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from function_builder.cli.failing import failure
from function_builder.cli.steps import printable
from function_builder.client import DEFAULT_URL, AsyncClient, ClientError
from function_builder.client.sealing import read_public_key
from function_builder.contract import secrets as sealed
from function_builder.contract.errors import Refusal
from function_builder.contract.names import SECRETS_NAME
from function_builder.contract.secrets import SecretsKey

secret = typer.Typer(
    no_args_is_help=True,
    help="Seal secrets for RUN --mount=type=secret, so that only the builder can open them.",
)


@secret.command()
def keygen(
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The private key's file; the public key's has .pub after it.",
        ),
    ] = Path("key"),
) -> None:
    """Make a key pair: the private key for the builder, the public one for its clients.

    \b
      function-builder secret keygen -o build-secrets.key
      build_secrets_private_key_path=build-secrets.key function-builder serve
    """
    key = SecretsKey.generate()
    public = Path(f"{output}.pub")
    if output.exists():
        raise failure(
            f"{output} exists, and opens the secrets that were sealed for it: move it away"
        )
    try:
        output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(output, key.to_text(), 0o600)
        _write(public, key.public.encode(), 0o644)
    except OSError as error:
        raise failure(f"cannot write {error.filename}: {error.strerror}") from None
    typer.echo(f"Wrote private key: {output}")
    typer.echo(f"Wrote public key:  {public}")
    typer.echo(f"Key ID:            {key.key_id}")


@secret.command()
def public_key(
    *,
    payload_secret: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            envvar="OPENFAAS_PAYLOAD_SECRET",
            help="The file of the payload secret, which signs the builder's answer.",
        ),
    ],
    url: Annotated[
        str,
        typer.Option(metavar="URL", envvar="OPENFAAS_REMOTE_BUILDER", help="The builder."),
    ] = DEFAULT_URL,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Without it: standard output."),
    ] = None,
) -> None:
    """Ask a builder for its public key, and check that the payload secret signed the answer.

    So no other server, and no proxy in between, can replace the key.

    \b
      function-builder secret public-key --payload-secret payload.txt -o key.pub
      function-builder secret seal key.pub --from-file pip_token=token.txt
    """
    key = asyncio.run(_public_key(url, _read(payload_secret).strip()))
    if output is None:
        typer.echo(key)
        return
    try:
        _write(output, key.encode(), 0o644)
    except OSError as error:
        raise failure(f"cannot write {error.filename}: {error.strerror}") from None
    typer.echo(f"Wrote public key: {output} (key ID: {sealed.key_id(key)})")


async def _public_key(url: str, secret: bytes) -> str:
    try:
        async with AsyncClient(url, payload_secret=secret, require_signed_answers=True) as client:
            return await client.public_key()
    except (ClientError, ValueError) as error:
        raise failure(printable(str(error))) from None


@secret.command()
def seal(
    public_key: Annotated[
        Path,
        typer.Argument(metavar="KEY", help="The public key, or the answer of GET /publickey."),
    ],
    *,
    from_literal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A secret's value; may be repeated. Other users of this machine see it while the "
            "command runs.",
        ),
    ] = None,
    from_file: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="A file with a secret's value; may be repeated."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file of the sealed secrets.")
    ] = Path(SECRETS_NAME),
) -> None:
    """Seal secrets for a builder's public key, for a request's tar or for version control.

    \b
      function-builder secret public-key --payload-secret payload.txt -o key.pub
      function-builder secret seal key.pub --from-file pip_token=token.txt
    """
    values = {
        name: value.encode() for name, value in _pairs("--from-literal", from_literal).items()
    }
    values |= {name: _read(Path(file)) for name, file in _pairs("--from-file", from_file).items()}
    if not values:
        raise typer.BadParameter("name a secret with --from-literal or --from-file")
    try:
        receiver = read_public_key(_read(public_key))
        envelope = sealed.seal(values, receiver)
        _write(output, envelope, 0o600)
    except ValueError as error:
        raise failure(f"{public_key}: {error}") from None
    except OSError as error:
        raise failure(f"cannot write {error.filename}: {error.strerror}") from None
    typer.echo(f"Sealed {len(values)} secret(s) to {output} (key ID: {sealed.key_id(receiver)})")


@secret.command()
def unseal(
    private_key: Annotated[
        Path, typer.Argument(metavar="KEY", help="The file of the private key.")
    ],
    *,
    source: Annotated[
        Path, typer.Option("--in", metavar="FILE", help="The file of the sealed secrets.")
    ] = Path(SECRETS_NAME),
    name: Annotated[
        str, typer.Option("--key", metavar="NAME", help="Print one secret's value, nothing else.")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", "-j", help="Print one JSON object of names and values.")
    ] = False,
) -> None:
    """Open sealed secrets and print them as NAME=VALUE.

    \b
      function-builder secret unseal key --key pip_token
    """
    try:
        key = SecretsKey.parse(_read(private_key))
    except ValueError as error:
        raise failure(f"{private_key}: {error}") from None
    try:
        values = sealed.unseal(_read(source), key)
    except Refusal as refusal:
        raise failure(refusal.reason) from None
    if name and name not in values:
        raise failure(f"{source} holds no secret {name}")
    if name:
        values = {name: values[name]}
    if as_json:
        texts = {name: value.decode(errors="replace") for name, value in values.items()}
        typer.echo(json.dumps(texts, ensure_ascii=False, indent=2, sort_keys=True))
    elif name:
        sys.stdout.buffer.write(values[name])
    else:
        for one, value in sorted(values.items()):
            sys.stdout.buffer.write(one.encode() + b"=" + value + b"\n")


def _pairs(option: str, texts: Sequence[str] | None) -> dict[str, str]:
    pairs = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals) or (option == "--from-file" and not value):
            # Without the text, because it may contain a value.
            raise typer.BadParameter("write NAME, an equals sign and the rest", param_hint=option)
        pairs[name] = value
    return pairs


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise failure(f"cannot read {file}: {error.strerror}") from None


def _write(file: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as opened:
        opened.write(content)
