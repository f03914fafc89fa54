"""The commands ``function-builder policy``: what a source policy refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from function_builder.builds.dockerfile_sources import NamedSource, named_sources
from function_builder.builds.source_matching import Decision, decide
from function_builder.builds.source_policy import SourcePolicy
from function_builder.cli.failing import failing_with
from function_builder.policy.source_policy_file import read_source_policy
from function_builder.policy.sources import builder_policy

DENIED: Final = 3

_ONLY_THE_BUILDER: Final = """\
Only a build shows:
- what a base image's ONBUILD instructions name
- what an image of a syntax line reads by itself
- whether a stage is built at all: a source of one that is not is not read
No policy sees a redirect, where a host's name leads, or a git submodule."""

policy = typer.Typer(
    no_args_is_help=True,
    help="Say what a source policy refuses.",
)


@policy.callback()
def _group() -> None:
    """Typer would make the only command the group itself."""


@policy.command("test")
def try_policy(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy, or a tenant's.")],
    context: Annotated[Path, typer.Argument(metavar="CONTEXT", help="The directory to build.")],
    *,
    dockerfile: Annotated[
        str, typer.Option("--dockerfile", metavar="PATH", help="Its path in the context.")
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
        bool, typer.Option(envvar="local_sources", help="As the builder's setting.")
    ] = False,
) -> None:
    """Say what would be refused, for which line of the Dockerfile, and by which rule.

    Nothing is built, and nothing is asked of a registry. Exits 3 if something would be refused.

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
