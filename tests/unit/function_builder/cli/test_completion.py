"""Completion of the command, by a real bash."""

import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["cer"], ["certs"]),
        (["build", "--compression-"], ["--compression-level"]),
        (["secret", "key"], ["keygen"]),
    ],
)
def test_bash_completes_commands_and_options(words: list[str], completed: list[str]) -> None:
    program = (
        'eval "$(function-builder completion bash)"\n'
        'COMP_WORDS=(function-builder "$@") COMP_CWORD=$#\n'
        "_function_builder_completion function-builder\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    found = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", *words],
        check=True,
        env={"PATH": f"{BIN}:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert found.stdout.split() == completed


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script(shell: str) -> None:
    found = subprocess.run(
        [BIN / "function-builder", "completion", shell],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert f"_FUNCTION_BUILDER_COMPLETE=complete_{shell}" in found.stdout
