"""The command without a command: what it lists, and what it loads."""

import os
import subprocess
import sys
from pathlib import Path

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
    ("arguments", "columns", "by_typer"),
    [
        (["--version"], "60", False),
        (["--help"], "80", False),
        (["build", "--help"], "80", False),
        (["build", "--help"], "60", True),
        (["logs", "--help"], "60", True),
        (["certs", "--help"], "60", True),
    ],
)
def test_a_question_loads_neither_client_nor_server(
    arguments: list[str], columns: str, by_typer: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        check=True,
        env={**os.environ, "COLUMNS": columns},
        text=True,
    )
    loaded = done.stderr.split()
    assert ("typer" in loaded) == by_typer
    assert not HEAVY & set(loaded)
    assert len(max(done.stdout.splitlines()[:3], key=len)) <= int(columns)


@pytest.mark.parametrize("arguments", [["--version"], ["build", "--help"]])
def test_a_closed_pipe_is_no_error_to_print(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "function_builder", *arguments],
            check=False,
            stderr=subprocess.PIPE,
            stdout=pipe,
        )
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("arguments", [["--version"], ["build", "--help"], ["completion", "bash"]])
def test_a_full_disk_of_the_output_is_named(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "function_builder", *arguments],
            check=False,
            stderr=subprocess.PIPE,
            stdout=full,
            text=True,
        )
    said = "error: cannot write: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_character_that_the_output_lacks_is_replaced() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "function_builder", "build", "--help"],
        capture_output=True,
        check=True,
        encoding="latin-1",
        env={**os.environ, "COLUMNS": "60", "PYTHONIOENCODING": "latin-1"},
    )
    assert "manifest[linux/arm64]: ?" in " ".join(done.stdout.split())


@pytest.mark.parametrize("arguments", [["--version"], ["build", "--help"]])
def test_a_closed_output_is_no_error_to_print(arguments: list[str]) -> None:
    command = 'exec "$0" -m function_builder "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, *arguments], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


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
