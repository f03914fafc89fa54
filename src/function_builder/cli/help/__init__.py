"""The help of each command, in this folder, as Typer prints it on a terminal of usual width.

Typer takes longer to load than all that a help needs. `scripts/helps.py` writes the files, and
`scripts/check` compares them with Typer's.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from function_builder.cli import PROGRAM

FOLDER: Final = Path(__file__).parent

COLUMNS: Final = 80
"""A wider terminal does not change a help."""


def show(words: Sequence[str]) -> None:
    """Print the help of the command that the words name, and exit; return if Typer has to."""
    # Other words are not a command's, and could lead out of the folder.
    names = all(word.replace("-", "").isalpha() for word in words)
    if not names or shutil.get_terminal_size().columns < COLUMNS:
        return
    try:
        text = FOLDER.joinpath("/".join((PROGRAM, *words)) + ".txt").read_bytes()
    except OSError:
        return
    if sys.stdout is not None:  # as it is if its descriptor is closed
        # As bytes, because the encoding of the output may not have all of its characters.
        sys.stdout.buffer.write(text)
        sys.stdout.flush()
    sys.exit()
