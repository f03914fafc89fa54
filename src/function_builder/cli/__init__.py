"""The command `function-builder`.

A command's module is imported when the command runs, so a server does not import the client, and a
client does not import the server. Both then start faster.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import Annotated, Final

import typer

from function_builder import __version__

_COMMANDS: Final = {
    "up": "Run a builder on this machine, and build an example.",
    "build": "Build a directory into an image, and push it.",
    "builds": "List a builder's builds.",
    "logs": "Show a build's log, and follow it.",
    "cancel": "Stop a build.",
    "retry": "Build the same body again.",
    "usage": "Show the usage of tenants.",
    "web": "Print the link that opens a builder's web pages.",
    "serve": "Serve the Function Builder API.",
    "setup": "Compile the programs that `up` and `serve` run.",
    "secret": "Make keys, and seal build secrets.",
    "tenants": "Check and extend the file of a builder's tenants.",
    "policy": "Show what a source policy refuses.",
    "certs": "Make certificates for BuildKit.",
    "doctor": "Check whether this machine can build.",
    "completion": "Print the completion script of a shell.",
}
"""The commands and their help, in the order in which a new user needs them. Each is a function or a
group of commands, in the module of the same name. The list of commands loads none of them."""

COMPLETE_VARIABLE: Final = "_FUNCTION_BUILDER_COMPLETE"
"""Set by the completion script of a shell. Typer derives the name from the program's."""

_IN_BUILDS: Final = ("logs", "cancel", "retry")
"""These are in the module of `builds`."""

_PRO_BUILDER: Final = "./pro-builder"

_HELP: Final = "An open Function Builder API: a signed tar goes in, a container image comes out."

_EPILOG: Final = (
    "Start with `function-builder up`: it starts everything on this machine, builds an "
    "example and says how to build your own."
)


def main() -> None:
    """Run the command that the program's arguments name."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=_HELP, epilog=_EPILOG)(_options)
    wanted = _completed_command() if COMPLETE_VARIABLE in os.environ else "".join(sys.argv[1:2])
    # Without a garbage collection of the modules, a server starts a tenth faster.
    gc.disable()
    for name, text in _COMMANDS.items():
        if name != wanted:
            app.command(name, help=text)(lambda: None)
            continue
        module = "builds" if name in _IN_BUILDS else name
        command = getattr(import_module(f"{__name__}.{module}"), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    gc.freeze()
    gc.enable()
    app(prog_name="function-builder")


def _completed_command() -> str:
    """The command of the line that a shell asks to complete."""
    # Typer offers it under this name, without an `__all__`. Only a shell's question needs it.
    import_module("typer.completion").completion_init()
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return "".join(line.split()[1:2])


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


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"function-builder {__version__}")
        raise typer.Exit


def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass
