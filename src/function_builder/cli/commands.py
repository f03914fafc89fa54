"""The commands, and their options as Typer reads them."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Container
from importlib import import_module
from typing import Annotated, Final

import typer

from function_builder import __version__
from function_builder.cli import COMPLETE_VARIABLE, PROGRAM

COMMANDS: Final = {
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

_IN_BUILDS: Final = ("logs", "cancel", "retry")
"""These are in the module of `builds`."""

_HELP: Final = "An open Function Builder API: a signed tar goes in, a container image comes out."

_EPILOG: Final = (
    "Start with `function-builder up`: it starts everything on this machine, builds an "
    "example and says how to build your own."
)


def run() -> None:
    """Run the command that the program's arguments name."""
    wanted = _completed_command() if COMPLETE_VARIABLE in os.environ else "".join(sys.argv[1:2])
    app = application((wanted,))
    gc.freeze()
    gc.enable()
    app(prog_name=PROGRAM)


def application(loaded: Container[str]) -> typer.Typer:
    """The commands; those that are not in `loaded` have only their help in the list."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=_HELP, epilog=_EPILOG)(_options)
    for name, text in COMMANDS.items():
        if name not in loaded:
            app.command(name, help=text)(lambda: None)
            continue
        module = "builds" if name in _IN_BUILDS else name
        command = getattr(import_module(f"function_builder.cli.{module}"), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _completed_command() -> str:
    """The command of the line that a shell asks to complete."""
    # Typer offers it under this name, without an `__all__`. Only a shell's question needs it.
    import_module("typer.completion").completion_init()
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return "".join(line.split()[1:2])


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
