"""The command `function-builder`.

A command's module is imported when the command runs, so a server does not import the client, and a
client does not import the server. Both then start faster. Typer is imported by those that need it:
a build with usual options (`quick`) and a help (`help`) do not.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from io import TextIOWrapper
from typing import Final

from function_builder import __version__
from function_builder.cli.exit_codes import FAILED

COMPLETE_VARIABLE: Final = "_FUNCTION_BUILDER_COMPLETE"
"""Set by the completion script of a shell. Typer derives the name from the program's."""

PROGRAM: Final = "function-builder"

_PRO_BUILDER: Final = "./pro-builder"


def main() -> None:
    """Run the command that the program's arguments name."""
    words = [] if COMPLETE_VARIABLE in os.environ else sys.argv[1:]
    if isinstance(sys.stdout, TextIOWrapper):  # it is None if its descriptor is closed
        sys.stdout.reconfigure(errors="replace")
    # A short process ends before its garbage counts. A server's modules are not garbage.
    gc.disable()
    try:
        _run_without_typer(words)
        from function_builder.cli.commands import run

        run()
    except BrokenPipeError:
        # As Typer: without a second error when Python flushes what it could not write.
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 (until the end)
        sys.exit(FAILED)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(f"error: cannot write: {error.strerror}")
    except SystemExit:
        # Otherwise Python searches all modules for garbage when it exits.
        gc.freeze()
        gc.enable()
        raise


def _run_without_typer(words: list[str]) -> None:
    """Do what the words ask for, and exit; return if that needs Typer."""
    if words == ["--version"]:
        print(f"function-builder {__version__}", flush=True)  # noqa: T201 (what was asked for)
        sys.exit()
    if words[-1:] in (["-h"], ["--help"]):
        from function_builder.cli.help import show

        show(words[:-1])
    elif words[:1] == ["build"]:
        from function_builder.cli import quick

        quick.build(words[1:])


def pro_builder() -> None:
    """Run `serve` under pro-builder's name, with the arguments that its users give.

    Compose files name the program in `command`, which follows the image's entry point: a leading
    `./pro-builder` among the arguments is dropped.
    """
    arguments = sys.argv[1:]
    if arguments[:1] == [_PRO_BUILDER]:
        del arguments[0]
    sys.argv = [PROGRAM, "serve", *arguments]
    main()
