"""A program's output, line by line, in the form of our own log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from typing import Any, Final

import structlog

_LONGEST_LINE: Final = 64 * 1024
_REMEMBERED_LINES: Final = 20

_LEVELS: Final = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "fatal": "critical",
    "panic": "critical",
}
"""logrus's levels."""

_OURS: Final = frozenset({"event", "level", "timestamp", "program", "msg", "time"})


class Relay:
    """Writes each line of a program's output as one log line of ours.

    A JSON object, as logrus writes it, keeps its level and its fields; anything else is text.

    Args:
        program: its name, which each line bears.
    """

    def __init__(self, program: str) -> None:
        factory = structlog.get_config()["logger_factory"]
        # Its own level decides what it tells, not ours.
        wrapper = structlog.make_filtering_bound_logger(logging.DEBUG)
        self._log = structlog.wrap_logger(factory(), wrapper_class=wrapper, program=program)
        self.last: deque[str] = deque(maxlen=_REMEMBERED_LINES)

    async def run(self, stream: asyncio.StreamReader) -> None:
        """Relay until the stream ends."""
        held = b""
        while data := await stream.read(_LONGEST_LINE):
            *lines, held = (held + data).split(b"\n")
            for line in lines:
                self._tell(line)
            if len(held) >= _LONGEST_LINE:
                self._tell(held)
                held = b""
        self._tell(held)

    def _tell(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if not text:
            return
        said = _logrus(text)
        event = str(said["msg"]) if said else text
        self.last.append(event)
        level = _LEVELS.get(str(said.get("level")), "info")
        fields = {key: value for key, value in said.items() if key not in _OURS}
        getattr(self._log, level)(event, **fields)


def _logrus(text: str) -> dict[str, Any]:
    """The fields of a line that is one of logrus's; else none."""
    if not text.startswith("{"):
        return {}
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) and "msg" in said else {}
