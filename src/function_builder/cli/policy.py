"""The commands ``function-builder policy``: what a source policy refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from function_builder.builds.dockerfile_sources import NamedSource, named_sources
from function_builder.builds.source_matching import Decision, decide
from function_builder.builds.source_policy import SourcePolicy
from function_builder.cli.exit_codes import DENIED
from function_builder.cli.failing import failing_with
from function_builder.policy.source_policy_file import read_source_policy
from function_builder.policy.sources import builder_policy

_ONLY_THE_BUILDER: Final = """\
Only a build shows:
- the sources in a base image's ONBUILD instructions
- the sources that an image of a syntax line reads by itself
- whether a stage is built: the sources of other stages are not read
No policy sees a redirect, the address of a host's name, or a git submodule."""

policy = typer.Typer(
    no_args_is_help=True,
    help="Show what a source policy refuses.",
)


@policy.callback()
def _group() -> None:
    """Keep the group: Typer would replace it by its only command."""


@policy.command("test")
def try_policy(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file of a policy, or of a tenant's.")
    ],
    context: Annotated[Path, typer.Argument(metavar="CONTEXT", help="The directory to build.")],
    *,
    dockerfile: Annotated[
        str,
        typer.Option("--dockerfile", metavar="PATH", help="The Dockerfile's path in the context."),
    ] = "Dockerfile",
    build_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A build argument; may be repeated."),
    ] = None,
    source_policy: Annotated[
        str,
        typer.Option(
            envvar="source_policy",
            metavar="FILE",
            help="The builder's policy, if FILE is a tenant's. Both must allow a source.",
        ),
    ] = "",
    local_sources: Annotated[
        bool, typer.Option(envvar="local_sources", help="The builder's setting.")
    ] = False,
) -> None:
    """Show what would be refused: the line of the Dockerfile, and the rule.

    Nothing is built, and no registry is asked. The exit code is 3 if something would be refused.

    \b
      function-builder policy test policy.json .
    """
    with failing_with(ValueError):
        rules = _combined(file, source_policy, local_sources=local_sources)
        content = (context / dockerfile).read_bytes()
    arguments = dict(each.partition("=")[::2] for each in build_arg or ())
    named = [
        *(NamedSource(f"local://{name}", 0, 0, name) for name in ("dockerfile", "context")),
        *named_sources(content, arguments),
    ]
    denied = 0
    for each in named:
        place = f"{dockerfile}:{each.line}" if each.line else "the build context"
        if not each.source:
            typer.echo(f"unknown  {place}  {each.text}: its value is known in a build alone")
            continue
        decision = decide(rules, each.source)
        denied += decision.is_denied
        for line in _lines(place, each, decision):
            typer.echo(line)
    typer.echo(_ONLY_THE_BUILDER, err=True)
    if denied:
        raise typer.Exit(DENIED)


def _combined(file: Path, builders: str, *, local_sources: bool) -> SourcePolicy:
    own = read_source_policy(file)
    policy = builder_policy(builders, local_sources=local_sources)
    try:
        policy.check_narrowing(own)
    except ValueError as error:
        raise ValueError(f"{file.name} {error}") from None
    return policy.narrowed(own)


def _lines(place: str, named: NamedSource, decision: Decision) -> Sequence[str]:
    by = ", ".join(map(str, decision.converted_by))
    source = named.source if not by else f"{named.source} -> {decision.source} (rule: {by})"
    if decision.endless:
        return [f"DENIED   {place}  {named.source}: its conversions do not end (rule: {by})"]
    lines = [
        f"unknown  {place}  {source}: the rule {each} depends on an attribute, which is known in a "
        "build alone"
        for each in decision.uncertain
    ]
    if decision.denied_by is not None:
        return [*lines, f"DENIED   {place}  {source} (rule: {decision.denied_by})"]
    return lines or [f"allowed  {place}  {source}"]
