"""The kept helps are what Typer prints, and only a whole question is answered with them."""

import io
import sys

import pytest

from function_builder.cli import commands
from function_builder.cli.help import FOLDER, show
from scripts.helps import helps


def test_each_help_is_typers() -> None:
    kept = {path: path.read_text() for path in FOLDER.rglob("*.txt")}
    assert kept == helps(), "run scripts/helps.py"


@pytest.mark.parametrize(
    "words", [[], ["build"], ["secret", "public-key"]], ids=["the program", "build", "public-key"]
)
@pytest.mark.parametrize("columns", ["80", "200"])
def test_a_help_is_printed_as_typer_prints_it(
    words: list[str],
    columns: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "argv", ["function-builder", *words, "--help"])
    printed = []
    for print_help in (lambda: show(words), commands.run):
        with pytest.raises(SystemExit) as ended:
            print_help()
        assert not ended.value.code
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_help_needs_no_character_of_the_output(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    with pytest.raises(SystemExit):
        show(["build"])
    assert "manifest[linux/arm64]: …" in written.getvalue().decode()


@pytest.mark.parametrize(
    ("words", "columns"),
    [
        (["build"], "79"),
        (["build", "."], "80"),
        (["frob"], "80"),
        (["secret/seal"], "80"),
        (["..", "function-builder"], "80"),
        (["b" * 300], "80"),
        (["secret", ""], "80"),
    ],
)
def test_any_other_question_is_typers(
    words: list[str], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    show(words)
