"""The views of a build, and which of them is used."""

from __future__ import annotations

import json
import os

from rich.console import Console

from function_builder.cli.ending import ending, failing_lines
from function_builder.cli.live_view import LiveView
from function_builder.cli.options import Progress
from function_builder.cli.plain_view import PlainView
from function_builder.cli.steps import printable
from function_builder.cli.view import View
from function_builder.client import BuildResult, BuildStatus


def choose_view(console: Console, title: str, progress: Progress = Progress.AUTO) -> View:
    """The view of a kind; by default redrawn on a terminal, and plain lines in pipes and CI.

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


class QuietView(View):
    """Shows a failed build's error, and nothing else of a build."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def finish(self, result: BuildResult) -> None:
        """Say why the build failed."""
        if result.status is not BuildStatus.SUCCESS:
            self._console.print(failing_lines(result) + ending(result), soft_wrap=True)


class JsonView(View):
    """Writes the answer's objects unchanged, one JSON object per line, for programs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        """Write an object with the key `note`."""
        self._write(json.dumps({"note": printable(text)}))

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
