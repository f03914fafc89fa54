"""The command ``function-builder web``: the link that signs a browser in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from function_builder.cli.builder_options import DEFAULT_URL, LOCAL_SECRET, UrlOption
from function_builder.contract.builds import DEFAULT_TENANT
from function_builder.contract.web import web_token


def web(
    *,
    url: UrlOption = DEFAULT_URL,
    payload_secret: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            envvar="OPENFAAS_PAYLOAD_SECRET",
            help="Holds the secret that signs requests.",
            exists=True,
            dir_okay=False,
        ),
    ] = LOCAL_SECRET,
    tenant: Annotated[
        str, typer.Option(metavar="NAME", help="Whose builds, where the builder has tenants.")
    ] = DEFAULT_TENANT,
    hours: Annotated[
        float, typer.Option(metavar="HOURS", min=0.01, max=24 * 366, help="How long it opens them.")
    ] = 12,
) -> None:
    """Print the link that opens a builder's web pages in a browser.

    The builder shows them if its operator set web=true. A person with the link sees the builds,
    cancels them and builds them again, until it expires or the payload secret is replaced.
    Nothing is sent: the link is made of the payload secret.
    """
    secret = payload_secret.read_bytes().strip()
    typer.echo(link(url, secret, hours * 3600, tenant))


def link(url: str, secret: bytes, seconds: float, tenant: str = DEFAULT_TENANT) -> str:
    """The link of a builder's address that is valid for so many seconds."""
    token = web_token(secret, tenant, int(time.time() + seconds))
    return f"{url.rstrip('/').removesuffix('/build')}/web/sign-in?token={token}"
