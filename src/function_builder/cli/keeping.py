"""What `builds`, `logs`, `cancel` and `retry` do, apart from reading their options."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final, NamedTuple, TypeVar

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from function_builder.cli.builder_options import usage_errors
from function_builder.cli.calling import client_of, exits, note_on, print_image
from function_builder.cli.exit_codes import FAILED
from function_builder.cli.given import BuilderOptions
from function_builder.cli.steps import printable
from function_builder.cli.views import choose_view
from function_builder.client import AsyncClient, BuildInfo, BuildResult, BuildState, BuildStatus
from function_builder.contract.text import dump_json

_T = TypeVar("_T")

_WATCH_SECONDS: Final = 2.0
"""Seconds between two updates of the list."""

_FIRST_SECONDS: Final = 5.0
_QUIET_SECONDS: Final = 1.0
_CHATTY_SECONDS: Final = 10.0
"""When the current log counts as complete: without a first line, after a pause, or after a time."""

_GOES_ON: Final = "interrupted; the build still runs"
_COLORS: Final = {
    BuildState.SUCCESS: "green",
    BuildState.FAILED: "red",
    BuildState.RUNNING: "cyan",
}
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


class Selection(NamedTuple):
    """Which builds are listed."""

    states: Sequence[str]
    repository: str
    limit: int


def show(options: BuilderOptions, selection: Selection, *, as_json: bool) -> None:
    """Print the list once."""
    states = _states(selection)

    async def run(client: AsyncClient) -> None:
        if as_json:
            async for info in _selected(client, selection, states):
                typer.echo(dump_json(info.to_document()))
            return
        found = [info async for info in _selected(client, selection, states)]
        Console(highlight=False).print(_table(found, time.time()))

    _call(options, run, interrupted="interrupted")


def show_usage(
    options: BuilderOptions, *, first: str, last: str, tenant: str, as_json: bool
) -> None:
    """Print the usage of tenants: a line for each tenant and day."""

    async def run(client: AsyncClient) -> None:
        document = await client.usage(first=first, last=last, tenant=tenant)
        if as_json:
            typer.echo(dump_json(document))
            return
        table = Table("DAY", "TENANT", box=None, pad_edge=False, header_style="bold")
        for column in ("BUILDS", "SUCCEEDED", "SECONDS", "RECEIVED"):
            table.add_column(column, justify="right")
        for row in document["usage"]:
            builds = row["builds"]
            table.add_row(
                printable(str(row["day"])),
                printable(str(row["tenant"])),
                str(sum(builds.values())),
                str(builds.get("success", 0)),
                f"{row['buildSeconds']:.1f}",
                decimal(row["receivedBytes"]),
            )
        Console(highlight=False).print(table)
        if since := document.get("since"):
            typer.echo(f"One builder's usage since its start, {printable(str(since))}.", err=True)

    _call(options, run, interrupted="interrupted")


def watch(options: BuilderOptions, selection: Selection) -> None:
    """Show the list until an interrupt."""
    states = _states(selection)
    console = Console(highlight=False)

    async def run(client: AsyncClient) -> None:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                found = [info async for info in _selected(client, selection, states)]
                live.update(_table(found, time.time()), refresh=True)
                await _pause(_WATCH_SECONDS)

    _call(options, run, interrupted="interrupted")


def log(options: BuilderOptions, build_id: str) -> None:
    """Print the current log of a build."""

    async def run(client: AsyncClient) -> None:
        build = client.handle(build_id)
        ended = (await build.status()).state.ended
        clock = asyncio.get_running_loop().time
        latest = clock() + _CHATTY_SECONDS
        # A log that grows does not say where it was when it was asked for.
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as limit, aclosing(build.log()) as progress:
                if not ended:
                    limit.reschedule(clock() + _FIRST_SECONDS)
                async for event in progress:
                    for line in event.log:
                        typer.echo(printable(line))
                    if not ended:
                        limit.reschedule(min(latest, clock() + _QUIET_SECONDS))

    _call(options, run, interrupted=_GOES_ON)


def follow(options: BuilderOptions, build_id: str) -> None:
    """Show a build until it ends, as `build` does, and print its image."""
    console = Console(stderr=True, highlight=False)
    view = choose_view(console, f"Build {printable(build_id)}")

    async def run(client: AsyncClient) -> BuildResult:
        build = client.handle(build_id)
        with view:
            async for progress in build.log():
                view.progress(progress)
            result = await build.wait()
        view.finish(result)
        return result

    result = _call(options, run, note=view.note, interrupted=_GOES_ON)
    if result.status is not BuildStatus.SUCCESS:
        raise typer.Exit(FAILED)
    print_image(result)


def cancel(options: BuilderOptions, build_id: str) -> None:
    """Cancel a build."""

    async def run(client: AsyncClient) -> BuildInfo:
        return await client.handle(build_id).cancel()

    info = _call(options, run, interrupted="interrupted; the build may still run")
    typer.echo(f"{build_id} is {info.state}", err=True)


def retry(options: BuilderOptions, build_id: str) -> None:
    """Build again, and print the new build's id."""

    async def run(client: AsyncClient) -> str:
        return (await client.handle(build_id).retry()).id

    typer.echo(_call(options, run, interrupted="interrupted; the build may have been queued"))


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds)


def _call(
    options: BuilderOptions,
    function: Callable[[AsyncClient], Coroutine[Any, Any, _T]],
    *,
    interrupted: str,
    note: Callable[[str], None] | None = None,
) -> _T:
    console = Console(stderr=True, highlight=False)
    with usage_errors():
        client = client_of(options, note or note_on(console))

    async def run() -> _T:
        async with client:
            return await function(client)

    with exits(console, options, interrupted=interrupted):
        return asyncio.run(run())


def _states(selection: Selection) -> list[BuildState]:
    try:
        return list(map(BuildState, selection.states))
    except ValueError as error:
        raise typer.BadParameter(f"use {', '.join(BuildState)}", param_hint="--status") from error


async def _selected(
    client: AsyncClient, selection: Selection, states: Sequence[BuildState]
) -> AsyncIterator[BuildInfo]:
    left = selection.limit
    found = client.builds(status=states, repository=selection.repository, page=min(left, 200))
    async with aclosing(found):
        async for info in found:
            yield info
            left -= 1
            if not left:
                return


def _table(found: Sequence[BuildInfo], now: float) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("ID", "STATUS", "AGE", "TOOK"):
        table.add_column(name, no_wrap=True)
    table.add_column("IMAGE", overflow="fold")
    for info in found:
        status = Text(info.state, _COLORS.get(info.state, ""))
        if info.position:
            status.append(f" ({info.position})")
        took = None if info.started is None else (info.ended or now) - info.started
        table.add_row(
            info.id,
            status,
            _span(now - info.created),
            "" if took is None else f"{max(took, 0):.1f} s",
            Text(printable(info.image)),
        )
    return table


def _span(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
