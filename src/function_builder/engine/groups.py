"""Start a program in a process group of its own, so that all of it can be ended."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import Any


async def start_group(*argv: str, **options: Any) -> asyncio.subprocess.Process:
    """Start a program as the leader of a new session, and so of a process group.

    If this is cancelled, nothing of the group is left. asyncio's own function would kill the
    program alone.

    Args:
        argv: the program and its arguments.
        options: as of `asyncio.create_subprocess_exec`.

    Raises:
        OSError: it cannot be started.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(*argv, start_new_session=True, **options)
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # A task, because this may be cancelled again while it waits.
        await asyncio.wait((asyncio.ensure_future(_end(starting)),))
        raise


async def _end(starting: asyncio.Task[asyncio.subprocess.Process]) -> None:
    with suppress(OSError):
        process = await starting
        kill_group(process.pid)
        await process.wait()


def kill_group(leader: int) -> None:
    """Kill what is left of the group of a leader, which may have ended."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
