"""Write the helps of the commands, as `function_builder.cli.help` prints them.

`scripts/helps.py` writes the files; with `--check` it only says whether they are current.
"""

import sys
from collections.abc import Container, Iterator
from pathlib import Path

import typer

from function_builder.cli import PROGRAM
from function_builder.cli.commands import COMMANDS, application
from function_builder.cli.help import COLUMNS, FOLDER


def helps() -> dict[Path, str]:
    """The files, and Typer's text of each."""
    # The list of all commands is made of their texts in COMMANDS, and loads none.
    pages = [*_helps(_context(COMMANDS)), next(_helps(_context(())))]
    return {FOLDER / f"{name.replace(' ', '/')}.txt": text for name, text in pages}


def _context(loaded: Container[str]) -> typer.Context:
    command = typer.main.get_command(application(loaded))
    # Typer leaves two columns free.
    return typer.Context(
        command, info_name=PROGRAM, terminal_width=COLUMNS - 2, **command.context_settings
    )


def _helps(context: typer.Context) -> Iterator[tuple[str, str]]:
    """A command's name and help, and those of the commands in it."""
    yield context.command_path, f"{context.get_help()}\n"
    for name, command in getattr(context.command, "commands", {}).items():
        yield from _helps(typer.Context(command, parent=context, info_name=name))


def main() -> int:
    """Write the files, or compare them."""
    current = helps()
    kept = {path: path.read_text() for path in FOLDER.rglob("*.txt")}
    if kept == current:
        return 0
    if "--check" in sys.argv:
        print("check: a command's help is old: run scripts/helps.py", file=sys.stderr)
        return 1
    for path in kept.keys() - current.keys():
        path.unlink()
    for path, text in current.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
