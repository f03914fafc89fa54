"""Lines on standard error, in color where it is a terminal, without a load of rich."""

from __future__ import annotations

import os
import sys
from typing import IO, Final, Protocol

Part = str | tuple[str, str]
"""A text, or a text with its style."""

_CODES: Final = {"green": "32", "red": "31", "yellow": "33", "dim": "2", "bold red": "1;31"}


class Output(Protocol):
    """Where lines are written; rich's `Console` is one too."""

    @property
    def file(self) -> IO[str]:
        """What lines are written to."""

    @property
    def is_terminal(self) -> bool:
        """Whether it is a terminal."""

    @property
    def is_dumb_terminal(self) -> bool:
        """Whether nothing on it can be redrawn."""

    @property
    def color_system(self) -> str | None:
        """The colors that it has; None: none."""


class StandardError:
    """Standard error, by the variables that rich reads too: `NO_COLOR`, `FORCE_COLOR`, `TERM`."""

    @property
    def file(self) -> IO[str]:
        """What lines are written to."""
        return sys.stderr

    @property
    def is_terminal(self) -> bool:
        """Whether it is a terminal."""
        return bool(os.environ.get("FORCE_COLOR")) or sys.stderr.isatty()

    @property
    def is_dumb_terminal(self) -> bool:
        """Whether nothing on it can be redrawn."""
        return self.is_terminal and os.environ.get("TERM", "").lower() in ("dumb", "unknown")

    @property
    def color_system(self) -> str | None:
        """The colors that it has; None: none."""
        colored = self.is_terminal and not self.is_dumb_terminal
        return "standard" if colored and not os.environ.get("NO_COLOR") else None


def write(output: Output, *parts: Part) -> None:
    """Write a line of these parts, however long."""
    colored = output.color_system is not None and not os.environ.get("NO_COLOR")
    output.file.write("".join(_styled(part, colored=colored) for part in parts) + "\n")
    output.file.flush()


def _styled(part: Part, *, colored: bool) -> str:
    if isinstance(part, str):
        return part
    text, style = part
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if colored and text else text
