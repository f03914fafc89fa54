"""The last lines about a build: how it ended, and why it failed."""

from __future__ import annotations

from function_builder.cli.output import Part
from function_builder.cli.steps import printable
from function_builder.client import BuildResult, BuildStatus


def ending(result: BuildResult) -> list[Part]:
    """How a build ended; a failed build has the id that names it in the builder's log."""
    if result.status is BuildStatus.SUCCESS:
        return [(f"Built in {result.duration:.1f}s", "green")]
    said = f"Build failed after {result.duration:.1f}s: {_lines(result.error)}"
    parts: list[Part] = [(said, "red")]
    if result.build_id:
        parts.append((f"\nBuild id: {printable(result.build_id)}", "dim"))
    return parts


def failing_lines(result: BuildResult) -> str:
    """The lines of the Dockerfile around the instruction that failed, marked with `>>>`.

    The log of a build ends with them, so only a view that shows no log needs them. They are empty
    if the failure has no place in the Dockerfile.
    """
    return "" if result.source is None else f"{_lines(result.source.excerpt)}\n"


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())
