"""A build as plain lines, for pipes and CI."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

from rich.filesize import decimal

from function_builder.cli.ending import ending
from function_builder.cli.output import Output, write
from function_builder.cli.steps import Step, Steps, printable
from function_builder.cli.view import View
from function_builder.client import BuildResult, OutputLine, StatusLine, StepState, log_lines

_LARGE_BYTES: Final = 1_000_000
"""A smaller body is sent without a message."""

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


class PlainView(View):
    """Lines for pipes and CI: each step's name once, its output, and how it ended.

    A stream of ours says which step a line belongs to. So lines have its number, as in `docker
    build`, which distinguishes steps that run at once. Other builders' lines have none.
    """

    def __init__(self, output: Output, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._clock = clock
        self._steps = Steps()
        self._named: set[int | str] = set()
        self._held: dict[int | str, Step] = {}
        self._activities: dict[tuple[int, str], float] = {}
        self._sending: float | None = None

    def note(self, text: str) -> None:
        """Show a message of the command or the client."""
        self._line(printable(text))

    def upload(self, sent: int, total: int) -> None:
        """Show the size of a request, and how long it took to send."""
        if total < _LARGE_BYTES:
            return
        if self._sending is None:
            self._sending = self._clock()
            self._line(f"Sending {decimal(total)}")
        if sent == total:
            took = self._clock() - self._sending
            self._sending = None
            if took >= 1:
                self._line(f"Sent {decimal(total)} in {took:.1f}s, {decimal(int(total / took))}/s")

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
        write(self._output, *ending(result))

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
        """Show the held ends of steps, because other steps start."""
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
        """Show a long activity of a step, such as a push, when it starts and when it has ended."""
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
        write(self._output, text)


def _number(step: int) -> str:
    return f"#{step} " if step else "  "
