"""The last lines about a build: how it ended, and of a failed build, where and why."""

from __future__ import annotations

from rich.text import Text

from function_builder.cli.steps import printable
from function_builder.client import BuildResult, BuildStatus


def ending(result: BuildResult) -> Text:
    """How a build ended.

    A failed build has the lines of its Dockerfile around the instruction that failed, marked with
    `>>>` as `docker buildx` marks it, and the id that names it in the builder's log.
    """
    if result.status is BuildStatus.SUCCESS:
        return Text(f"Built in {result.duration:.1f}s", "green")
    text = Text()
    if result.source is not None:
        text.append(f"{_lines(result.source.excerpt)}\n")
    text.append(f"Build failed after {result.duration:.1f}s: {_lines(result.error)}", "red")
    if result.build_id:
        text.append(f"\nBuild id: {printable(result.build_id)}", "dim")
    return text


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())
