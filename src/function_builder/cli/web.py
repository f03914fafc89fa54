"""The command ``function-builder web``: the link that signs a browser in."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from function_builder.cli.builder_options import UrlOption
from function_builder.cli.given import DEFAULT_URL, LOCAL_SECRET
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
            help="The file of the payload secret.",
            exists=True,
            dir_okay=False,
        ),
    ] = LOCAL_SECRET,
    tenant: Annotated[
        str, typer.Option(metavar="NAME", help="The tenant, if the builder has several.")
    ] = DEFAULT_TENANT,
    hours: Annotated[
        float,
        typer.Option(metavar="HOURS", min=0.01, max=24 * 366, help="How long the link is valid."),
    ] = 12,
) -> None:
    """Print the link that opens a builder's web pages in a browser.

    The builder has these pages if its operator set web=true. Anyone with the link can see, cancel
    and retry builds, until the link expires or the payload secret is replaced.
    Nothing is sent, because the link is computed from the payload secret.
    """
    secret = payload_secret.read_bytes().strip()
    typer.echo(link(url, secret, hours * 3600, tenant))


def link(url: str, secret: bytes, seconds: float, tenant: str = DEFAULT_TENANT) -> str:
    """The link of a builder's address that is valid for so many seconds."""
    token = web_token(secret, tenant, int(time.time() + seconds))
    return f"{url.rstrip('/').removesuffix('/build')}/web/sign-in?token={token}"
