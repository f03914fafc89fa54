"""How a build is shown while it runs.

All views write to standard error; standard output is for the image's name alone, so that a script
can take it.
"""

from __future__ import annotations

import json
import os
from typing import Protocol, Self

from rich.console import Console

from function_builder.cli.ending import ending
from function_builder.cli.live_view import LiveView
from function_builder.cli.options import Progress
from function_builder.cli.plain_view import PlainView
from function_builder.cli.steps import printable
from function_builder.client import BuildResult, BuildStatus


class View(Protocol):
    """Shows one build; a context manager around it."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *exc: object) -> None:
        """Leave the terminal as it was."""

    def note(self, text: str) -> None:
        """Say something that is not the build's own."""

    def upload(self, sent: int, total: int) -> None:
        """Show that so many bytes of the request are sent."""

    def progress(self, event: BuildResult) -> None:
        """Show the log's next lines."""

    def finish(self, result: BuildResult) -> None:
        """Show how the build ended."""


def choose_view(console: Console, title: str, progress: Progress = Progress.AUTO) -> View:
    """The view of a kind; by default a picture on a terminal, and plain lines in pipes and CI.

    `NO_COLOR` changes colors alone, which the console does.
    """
    match progress:
        case Progress.QUIET:
            return QuietView(console)
        case Progress.JSON:
            return JsonView(console)
        case Progress.PLAIN:
            return PlainView(console)
        case Progress.TTY:
            return LiveView(console, title)
    picture = console.is_terminal and not console.is_dumb_terminal and not os.environ.get("CI")
    return LiveView(console, title) if picture else PlainView(console)


class QuietView:
    """Shows a failed build's error, and nothing else of a build."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Nothing."""

    def upload(self, sent: int, total: int) -> None:
        """Nothing."""

    def progress(self, event: BuildResult) -> None:
        """Nothing."""

    def finish(self, result: BuildResult) -> None:
        """Say why the build failed."""
        if result.status is not BuildStatus.SUCCESS:
            self._console.print(ending(result), soft_wrap=True)


class JsonView:
    """Writes the answer's objects as they came, one JSON object a line, for programs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Write an object with the key `note`."""
        self._write(json.dumps({"note": printable(text)}))

    def upload(self, sent: int, total: int) -> None:
        """Nothing: the answer's objects are all there is."""

    def progress(self, event: BuildResult) -> None:
        """Write an object of the answer."""
        document = event.to_document()
        if event.steps:
            document["steps"] = list(event.steps)
        self._write(json.dumps(document))

    def finish(self, result: BuildResult) -> None:
        """Write the last object, without the log, which was written before."""
        self._write(json.dumps({**result.to_document(), "log": []}))

    def _write(self, line: str) -> None:
        self._console.file.write(f"{line}\n")
        self._console.file.flush()
