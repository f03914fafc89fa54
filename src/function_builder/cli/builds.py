"""The commands about builds that the builder keeps: `builds`, `logs`, `cancel`, `retry`."""

from __future__ import annotations

from typing import Annotated

import typer

from function_builder.cli.builder_options import with_builder
from function_builder.cli.given import BuilderOptions

_Id = Annotated[str, typer.Argument(metavar="ID", help="The build, as `builds` lists it.")]


@with_builder
def builds(
    builder: BuilderOptions,
    *,
    status: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATUS",
            help="Only queued, running, success, failed or cancelled builds; may be repeated.",
        ),
    ] = None,
    repository: Annotated[
        str,
        typer.Option(metavar="NAME", help="Only builds of this image, without its tag."),
    ] = "",
    limit: Annotated[
        int, typer.Option(metavar="COUNT", min=1, max=10_000, help="How many, newest first.")
    ] = 20,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Update the table until Ctrl-C.")
    ] = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object per line, as GET /builds/ID returns it."
        ),
    ] = False,
) -> None:
    """List a builder's builds, newest first.

    The builder keeps its builds if its operator set nats_url.

    \b
      function-builder builds
      function-builder builds --watch --status queued --status running
      function-builder builds --json --limit 100 | jq -r 'select(.status == "failed").buildId'

    \b
    Exit codes:
      0    listed
      2    the command is wrong
      3    the builder refused, stayed busy or gave no answer
      130  interrupted
    """
    from function_builder.cli import keeping

    selection = keeping.Selection(status or (), repository, limit)
    if watch:
        keeping.watch(builder, selection)
    else:
        keeping.show(builder, selection, as_json=json)


@with_builder
def logs(
    builder: BuilderOptions,
    build_id: _Id,
    *,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Follow the log to the build's end, then print its image."
        ),
    ] = False,
) -> None:
    """Show a build's log, from its beginning.

    With --follow, a terminal shows the steps while they run, as `build` does. After a lost
    connection, the command reconnects for up to --wait seconds, and no line is lost. An interrupt
    does not stop the build; `cancel` does. The log goes to standard output. With --follow it goes
    to standard error, and standard output has the image with its digest.

    \b
      function-builder logs 019acb0dd1f84fe2a0c1d2e3
      image=$(function-builder logs -f 019acb0dd1f84fe2a0c1d2e3)

    \b
    Exit codes:
      0    the log was shown; with --follow: the build succeeded
      1    with --follow: the build failed or was cancelled
      2    the command is wrong
      3    the builder refused, or gave no answer
      130  interrupted; the build still runs
    """
    from function_builder.cli import keeping

    if follow:
        keeping.follow(builder, build_id)
    else:
        keeping.log(builder, build_id)


@with_builder
def cancel(builder: BuilderOptions, build_id: _Id) -> None:
    """Cancel a build that is queued, or that runs on any replica of the builder.

    \b
    Exit codes:
      0    the build is cancelled
      2    the command is wrong
      3    the builder refused, for example because the build has ended, or did not answer
      130  interrupted
    """
    from function_builder.cli import keeping

    keeping.cancel(builder, build_id)


@with_builder
def retry(builder: BuilderOptions, build_id: _Id) -> None:
    """Build the same body again, as a new build, and print the new build's id.

    The build must have ended, and the builder must still have its body (keep_bodies).

    \b
    Exit codes:
      0    the new build is queued
      2    the command is wrong
      3    the builder refused, or gave no answer
      130  interrupted
    """
    from function_builder.cli import keeping

    keeping.retry(builder, build_id)
