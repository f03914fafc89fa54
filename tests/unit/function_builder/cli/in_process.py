"""Commands run in the process of the test: to load one anew takes half a second of a processor."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from function_builder.cli import main


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`function-builder` with these arguments, in a directory."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = patch.object(sys, "argv", ["function-builder", *words])
    outputs = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with contextlib.chdir(directory), argv, outputs[0], outputs[1]:
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())
