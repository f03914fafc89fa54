"""Commands that the cluster's tests run, each bounded in time."""

import asyncio
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from function_builder.engine import find_tool


class CommandFailed(Exception):
    """A command did not exit with 0; the text is what it said."""


async def run(
    name: str,
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    stdin: str | None = None,
    seconds: float = 300,
) -> str:
    """Run a command; its output.

    Raises:
        CommandFailed: it did not exit with 0.
        TimeoutError: it took longer than `seconds`; it has been ended.
    """
    process = await asyncio.create_subprocess_exec(
        find_tool(name),
        *arguments,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate(None if stdin is None else stdin.encode())
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        said = (errors or output).decode(errors="replace").strip()
        raise CommandFailed(f"{name} {' '.join(map(str, arguments))}: {said}")
    return output.decode()
