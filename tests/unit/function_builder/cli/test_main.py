"""The command without a command: what it lists, and what it loads."""

import subprocess
import sys

import pytest

from function_builder import __version__
from function_builder.cli.commands import COMMANDS
from function_builder.cli.given import DEFAULT_URL
from function_builder.client import DEFAULT_URL as CLIENT_DEFAULT

HEAVY = {"httpx2", "rich", "starlette", "structlog", "uvicorn", "asyncio", "ssl", "yaml"}
"""What the client and the server load, each of which takes longer than the command itself."""

PROGRAM = """
import sys
from function_builder.cli import main
try:
    main()
finally:
    print("loaded:", *sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["build", "--help"], ["logs", "--help"], ["certs", "--help"]],
)
def test_a_question_loads_neither_client_nor_server(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True
    )
    loaded = done.stderr.split()
    assert ("typer" in loaded) == (arguments != ["--version"])
    assert not HEAVY & set(loaded)


def test_the_version_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "function_builder", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"function-builder {__version__}\n"


def test_each_command_is_in_the_list_with_a_whole_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "function_builder", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = done.stdout.partition("Commands:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in listed.splitlines()] == list(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") for line in listed.splitlines())


def test_the_default_builder_is_the_clients() -> None:
    assert DEFAULT_URL == CLIENT_DEFAULT
