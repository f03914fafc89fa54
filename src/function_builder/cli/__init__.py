"""The command `function-builder`.

A command's module is imported when the command runs, so a server does not import the client, and a
client does not import the server. Both then start faster. Typer is imported by those that need it:
a build with usual options does not (`quick`).
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Final

from function_builder import __version__

COMPLETE_VARIABLE: Final = "_FUNCTION_BUILDER_COMPLETE"
"""Set by the completion script of a shell. Typer derives the name from the program's."""

_PRO_BUILDER: Final = "./pro-builder"


def main() -> None:
    """Run the command that the program's arguments name."""
    words = [] if COMPLETE_VARIABLE in os.environ else sys.argv[1:]
    if words == ["--version"]:
        print(f"function-builder {__version__}")  # noqa: T201 (what was asked for)
        sys.exit()
    # A short process ends before its garbage counts. A server's modules are not garbage.
    gc.disable()
    if words[:1] == ["build"]:
        from function_builder.cli import quick

        try:
            quick.build(words[1:])
        except SystemExit:
            # Otherwise Python searches all modules for garbage when it exits.
            gc.freeze()
            gc.enable()
            raise
    from function_builder.cli.commands import run

    run()


def pro_builder() -> None:
    """Run `serve` under pro-builder's name, with the arguments that its users give.

    Compose files name the program in `command`, which follows the image's entry point: a leading
    `./pro-builder` among the arguments is dropped.
    """
    arguments = sys.argv[1:]
    if arguments[:1] == [_PRO_BUILDER]:
        del arguments[0]
    sys.argv = ["function-builder", "serve", *arguments]
    main()
