"""How a build is shown while it runs.

All views write to standard error, because standard output is only for the image's name: a script
may read it.
"""

from __future__ import annotations

from typing import Self

from function_builder.client import BuildResult


class View:
    """Shows one build; a context manager around it. This one shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave the terminal as it was."""

    def note(self, text: str) -> None:
        """Show a message of the command or the client, which is not part of the log."""

    def upload(self, sent: int, total: int) -> None:
        """Show how many bytes of the request are sent."""

    def progress(self, event: BuildResult) -> None:
        """Show the next lines of the log."""

    def finish(self, result: BuildResult) -> None:
        """Show how the build ended."""
