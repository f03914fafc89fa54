"""How a build is shown while it runs: a picture on a terminal, plain lines everywhere else.

Both write to standard error; standard output is for the image's name alone, so that a script can
take it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from function_builder.cli.steps import Step, Steps, printable
from function_builder.client import (
    BuildResult,
    BuildStatus,
    OutputLine,
    StatusLine,
    StepState,
    log_lines,
)

_SHOWN_OUTPUT: Final = 6

_ENDINGS: Final = {
    StepState.COMPLETED: "DONE SECONDS",
    StepState.CACHED: "CACHED",
    StepState.FAILED: "FAILED after SECONDS",
    StepState.CANCELLED: "CANCELLED",
}

_ENDS_ONCE: Final = re.compile(r"\[[^]]*\d+/\d+\] (?!FROM )")
"""Steps of the Dockerfile that run a command or copy. Loads and exports end several times."""

_TRANSFER: Final = "transferring "
_BLOB: Final = "sha256:"


class View(Protocol):
    """Shows one build; a context manager around it."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *exc: object) -> None:
        """Leave the terminal as it was."""

    def note(self, text: str) -> None:
        """Say something that is not the build's own."""

    def progress(self, event: BuildResult) -> None:
        """Show the log's next lines."""

    def finish(self, result: BuildResult) -> None:
        """Show how the build ended."""


def choose_view(console: Console, title: str) -> View:
    """The live view on a terminal; plain lines in pipes, in CI, and where colour is unwanted."""
    plain = console.is_dumb_terminal or os.environ.get("CI") or os.environ.get("NO_COLOR")
    return LiveView(console, title) if console.is_terminal and not plain else PlainView(console)


class PlainView:
    """Lines for pipes and CI: each step's name once, then how it ended, with output between.

    A stream of ours says which step a line belongs to, so lines have its number, as `docker build`
    prints them: steps that run at once can be told apart. Other builders' lines have none.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._steps = Steps()
        self._named: set[int | str] = set()
        self._held: dict[int | str, Step] = {}
        self._activities: dict[tuple[int, str], float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Say something that is not the build's own."""
        self._line(printable(text))

    def progress(self, event: BuildResult) -> None:
        """Show the log's next lines."""
        for line in log_lines(event):
            step = self._steps.observe(line)
            if step is not None:
                self._step(step)
            elif isinstance(line, OutputLine):
                self._line(f"{_number(line.step)}{printable(line.text)}")
            elif isinstance(line, StatusLine):
                self._activity(line)

    def finish(self, result: BuildResult) -> None:
        """Say how the build ended."""
        self._tell_held()
        self._console.print(_ending(result), soft_wrap=True)

    def _step(self, step: Step) -> None:
        key = step.number or step.name
        if key not in self._named:
            self._tell_held()
            if step.number or step.running:
                self._named.add(key)
                number = f"#{step.number} " if step.number else ""
                self._line(f"{number}{printable(step.name)}")
        if step.running:
            self._held.pop(key, None)
        elif step.outcome is StepState.COMPLETED or step.outcome is None:
            self._held[key] = step
            if _ENDS_ONCE.match(step.name):
                self._tell_held()
        else:
            self._held.pop(key, None)
            self._tell(step)

    def _tell_held(self) -> None:
        """Tell the ends that may not have been the last of their steps, now that others begin."""
        for step in self._held.values():
            self._tell(step)
        self._held = {}

    def _tell(self, step: Step) -> None:
        took = f"{step.seconds:.2f}s"
        if step.number and step.outcome is not None:
            ending = _ENDINGS[step.outcome]
            self._line(f"#{step.number} {ending}".replace("SECONDS", took))
        elif step.took or step.name not in self._named:
            self._named.add(step.name)
            self._line(f"{printable(step.name)}  {step.took}".rstrip())

    def _activity(self, line: StatusLine) -> None:
        """Tell what a step does at length, such as a push, as it begins and once it has ended."""
        if not line.step or line.name.startswith(_TRANSFER):
            return
        key = line.step, line.name
        name = f"#{line.step} {printable(line.name)}"
        if key not in self._activities:
            self._activities[key] = self._clock()
            if not line.ended and not line.name.startswith(_BLOB):
                self._line(name)
        elif line.ended and (took := self._clock() - self._activities[key]) >= 1:
            moved = f" {decimal(line.current)}" if line.current else ""
            self._line(f"{name}{moved} {took:.1f}s")

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def _number(step: int) -> str:
    return f"#{step} " if step else "  "


class LiveView:
    """The build's steps, each with its time, and the newest output, redrawn in place.

    What is left in the end is every step, and of a failed build the output that it ended with.
    """

    def __init__(
        self, console: Console, title: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._title = title
        self._clock = clock
        self._began = clock()
        self._steps = Steps(clock=clock)
        self._live = Live(
            console=console, get_renderable=self._picture, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Say something that is not the build's own."""
        self._console.print(Text(printable(text), "yellow"))

    def progress(self, event: BuildResult) -> None:
        """Take the log's next lines into the picture."""
        for line in log_lines(event):
            self._steps.observe(line)

    def finish(self, result: BuildResult) -> None:
        """Replace the picture by the whole of what was done."""
        self._live.stop()
        failed = result.status is not BuildStatus.SUCCESS
        culprit = self._steps.failing(result.error) if failed else None
        steps = self._steps.begun.values()
        self._console.print(_table(_ended_row(step, culprit, failed=failed) for step in steps))
        if failed and self._steps.output:
            self._console.print(_output(self._steps.output), soft_wrap=True)
        self._console.print(_ending(result), soft_wrap=True)

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
        # The terminal echoes ^C where the cursor is: on a line of its own it spoils nothing.
        return Group(*picture, Text())

    def _headline(self, now: float) -> Text:
        begun = list(self._steps.begun.values())
        known = self._steps.announced | {step.name for step in begun}
        done = sum(not step.running for step in begun)
        line = Text.assemble((self._title, "bold"), f"  {now - self._began:.1f}s")
        if known:
            line.append(f"  {done}/{len(known)}", "dim")
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


def _ending(result: BuildResult) -> Text:
    if result.status is BuildStatus.SUCCESS:
        return Text(f"Built in {result.duration:.1f}s", "green")
    words = "\n".join(printable(line) for line in result.error.splitlines())
    return Text(f"Build failed after {result.duration:.1f}s: {words}", "red")
