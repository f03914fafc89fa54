"""A build on a terminal, redrawn in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from function_builder.cli.ending import ending
from function_builder.cli.steps import Step, Steps, printable
from function_builder.cli.view import View
from function_builder.client import BuildResult, BuildStatus, StepState, log_lines

_SHOWN_OUTPUT: Final = 6


class LiveView(View):
    """The build's steps, each with its time, and the newest output, redrawn in place.

    At the end, it shows every step, and the last output of a failed build.
    """

    def __init__(
        self, console: Console, title: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._title = title
        self._clock = clock
        self._began = clock()
        self._steps = Steps(clock=clock)
        self._sent = ""
        self._live = Live(
            console=console, get_renderable=self._picture, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Show a message of the command or the client."""
        self._console.print(Text(printable(text), "yellow"))

    def upload(self, sent: int, total: int) -> None:
        """Show how much of the request is sent."""
        rate = int(sent / max(self._clock() - self._began, 0.001))
        moving = sent < total
        self._sent = (
            f"sending {decimal(sent)} of {decimal(total)}, {decimal(rate)}/s" if moving else ""
        )

    def progress(self, event: BuildResult) -> None:
        """Add the log's next lines to the view."""
        for line in log_lines(event):
            self._steps.observe(line)

    def finish(self, result: BuildResult) -> None:
        """Replace the view by all steps and the result."""
        self._live.stop()
        failed = result.status is not BuildStatus.SUCCESS
        culprit = self._steps.failing(result.error, result.step) if failed else None
        steps = self._steps.begun.values()
        self._console.print(_table(_ended_row(step, culprit, failed=failed) for step in steps))
        if failed and self._steps.output:
            self._console.print(_output(self._steps.output), soft_wrap=True)
        self._console.print(Text.assemble(*ending(result)), soft_wrap=True)

    def _picture(self) -> RenderableType:
        # Called from the refreshing thread: it works on copies, each taken in one step.
        steps = list(self._steps.begun.values())
        speaking = not steps or any(step.running and step.command for step in steps)
        output = self._steps.output[-_SHOWN_OUTPUT:] if speaking else ()
        room = max(3, self._console.height - len(output) - 4)
        now = self._clock()
        picture: list[RenderableType] = [self._headline(now)]
        picture.append(_table(_running_row(step, now) for step in _most_telling(steps, room)))
        if output:
            picture.append(_output(output))
        # The terminal echoes ^C at the cursor, which has an empty line for it.
        return Group(*picture, Text())

    def _headline(self, now: float) -> Text:
        begun = list(self._steps.begun.values())
        known = self._steps.announced | {step.name for step in begun}
        done = sum(not step.running for step in begun)
        line = Text.assemble((self._title, "bold"), f"  {now - self._began:.1f}s")
        if known:
            line.append(f"  {done}/{len(known)}", "dim")
        if self._sent:
            line.append(f"  {self._sent}", "dim")
        activity = self._steps.activity
        if activity is not None:
            moved = f" {decimal(activity.current)}" if activity.current else ""
            line.append(f"  {printable(activity.name)}{moved}", "dim")
        line.truncate(self._console.width, overflow="ellipsis")
        return line


def _most_telling(steps: list[Step], room: int) -> Iterator[Step]:
    """Steps for `room` lines, in their order: the running ones, then the newest others."""
    by_interest = sorted(enumerate(steps), key=lambda at: (not at[1].running, -at[0]))
    chosen = sorted(islice(by_interest, room))
    return (step for _, step in chosen)


def _table(rows: Iterator[tuple[Text, Text, Text]]) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=1)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _running_row(step: Step, now: float) -> tuple[Text, Text, Text]:
    name = printable(step.name)
    if step.began is None:
        failed = step.outcome is StepState.FAILED
        mark = Text("✗", "bold red") if failed else Text("✓", "green")
        return mark, Text(name), Text(step.took, "dim")
    seconds = now - step.began
    return Text("▶", "cyan"), Text(name, "cyan"), Text(f"{seconds:.1f}s", "cyan")


def _ended_row(step: Step, culprit: Step | None, *, failed: bool) -> tuple[Text, Text, Text]:
    """A step of a build that has ended.

    Where the log does not say how a step ended, a failed build leaves that open: a step that was
    stopped before it ran looks as if it had been cached.
    """
    mark, style = "✓", "green"
    if step is culprit:
        mark, style = "✗", "bold red"
    elif failed and step.outcome not in (StepState.COMPLETED, StepState.CACHED):
        mark, style = "·", ""
    took = "" if step.running else step.took or ("" if failed else "cached")
    name_style = style if step is culprit else ""
    return Text(mark, style), Text(printable(step.name), name_style), Text(took, "dim")


def _output(lines: tuple[str, ...]) -> Text:
    block = Text("\n", no_wrap=True, overflow="ellipsis")
    return block.join(Text.assemble(("│ ", "dim"), line) for line in lines)
