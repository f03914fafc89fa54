"""The command `completion`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # it has no __all__

from function_builder.cli import COMPLETE_VARIABLE, PROGRAM


class Shell(StrEnum):
    """The shells that have a completion script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell that runs the script.")],
) -> None:
    """Print the script that completes commands and options in a shell.

    \b
    bash, in ~/.bashrc:  eval "$(function-builder completion bash)"
    zsh, in ~/.zshrc:    eval "$(function-builder completion zsh)"
    fish:                function-builder completion fish | source
    """
    script = get_completion_script(
        prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, shell=shell.value
    )
    typer.echo(script)
