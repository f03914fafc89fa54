"""The views of a build, and which of them is used."""

from __future__ import annotations

import json
import os

from function_builder.cli.ending import ending, failing_lines
from function_builder.cli.given import Progress
from function_builder.cli.output import Output, write
from function_builder.cli.plain_view import PlainView
from function_builder.cli.steps import printable
from function_builder.cli.view import View
from function_builder.client import BuildResult, BuildStatus


def choose_view(output: Output, title: str, progress: Progress = Progress.AUTO) -> View:
    """The view of a kind; by default a picture on a terminal, and plain lines in pipes and CI.

    `NO_COLOR` changes colors alone.
    """
    match progress:
        case Progress.QUIET:
            return QuietView(output)
        case Progress.JSON:
            return JsonView(output)
        case Progress.PLAIN:
            return PlainView(output)
        case Progress.TTY:
            return _live_view(output, title)
    picture = output.is_terminal and not output.is_dumb_terminal and not os.environ.get("CI")
    return _live_view(output, title) if picture else PlainView(output)


def _live_view(output: Output, title: str) -> View:
    # Loaded here, because pipes and CI need none of it.
    from rich.console import Console

    from function_builder.cli.live_view import LiveView

    if not isinstance(output, Console):
        output = Console(file=output.file, highlight=False)
    return LiveView(output, title)


class QuietView(View):
    """Shows a failed build's error, and nothing else of a build."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def finish(self, result: BuildResult) -> None:
        """Say why the build failed."""
        if result.status is not BuildStatus.SUCCESS:
            write(self._output, failing_lines(result), *ending(result))


class JsonView(View):
    """Writes the answer's objects unchanged, one JSON object per line, for programs."""

    def __init__(self, output: Output) -> None:
        self._output = output

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
        self._output.file.write(f"{line}\n")
        self._output.file.flush()
