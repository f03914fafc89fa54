"""How a command ends with an error: `error: …` on standard error, and exit code 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from function_builder.cli.exit_codes import FAILED


def failure(message: str) -> typer.Exit:
    """Print an error, with the prefix on each line; the caller raises the result."""
    for line in message.splitlines():
        typer.echo(f"error: {line}", err=True)
    return typer.Exit(FAILED)


@contextmanager
def failing_with(*kinds: type[Exception]) -> Iterator[None]:
    """End the command if the block raises an `OSError` about a file, or one of `kinds`."""
    try:
        yield
    except OSError as error:
        raise failure(f"{error.filename}: {error.strerror}") from None
    except kinds as error:
        raise failure(str(error)) from None
