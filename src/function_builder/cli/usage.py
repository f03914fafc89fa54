"""The command `function-builder usage`: the usage of tenants, by day."""

from __future__ import annotations

from typing import Annotated

import typer

from function_builder.cli.builder_options import with_builder
from function_builder.cli.given import BuilderOptions


@with_builder
def usage(
    builder: BuilderOptions,
    *,
    first: Annotated[
        str, typer.Option("--from", metavar="DAY", help="The first day, UTC. [default: the 1st]")
    ] = "",
    last: Annotated[
        str, typer.Option("--to", metavar="DAY", help="The last day, UTC. [default: today]")
    ] = "",
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Only this tenant.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the JSON of GET /usage.")] = False,
) -> None:
    """Show the usage of tenants, by day.

    With the builder's own payload secret it shows all tenants, with a tenant's its own usage.

    \b
      function-builder usage
      function-builder usage --from 2026-11-01 --to 2026-11-30 --tenant acme
      function-builder usage --json | python examples/bill.py prices.json

    \b
    Exit codes:
      0    shown
      2    the command is wrong
      3    the builder refused, or gave no answer
      130  interrupted
    """
    from function_builder.cli import keeping

    keeping.show_usage(builder, first=first, last=last, tenant=tenant, as_json=json)
