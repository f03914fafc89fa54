"""The exit codes of the commands, beside 0. A command's help lists its own."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
"""The command ran, and its result is a failure: of a build, of a file, of a check."""

USAGE: Final = 2
"""The command or the directory is wrong; nothing was sent. Typer has the same code."""

REFUSED: Final = 3
"""The builder refused, stayed busy or did not answer."""

DENIED: Final = 3
"""A source policy refuses a source."""

INTERRUPTED: Final = 130
"""The shells' code for a process that SIGINT ended: 128 and its number."""
