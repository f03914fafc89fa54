"""Relay a program's output to our log, line by line."""

from __future__ import annotations

import asyncio
import json
import logging
import re
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

_NATS_LEVELS: Final = {
    "TRC": "debug",
    "DBG": "debug",
    "INF": "info",
    "WRN": "warning",
    "ERR": "error",
    "FTL": "critical",
}
"""nats-server's levels (its logger/log.go)."""

_NATS: Final = re.compile(r"\[\d+\] \[([A-Z]{3})\] (.*)", re.DOTALL)

_OURS: Final = frozenset({"event", "level", "timestamp", "program", "msg", "time"})


class Relay:
    """Writes each line of a program's output as a line of our log.

    A JSON object in logrus's form keeps its level and its fields, a line of nats-server's its
    level. Other lines are text.

    Args:
        program: its name, for each line.
    """

    def __init__(self, program: str) -> None:
        factory = structlog.get_config()["logger_factory"]
        # The program's own level decides what it logs, not ours.
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
        level = _LEVELS.get(str(said.get("level")), "info")
        event = str(said["msg"]) if said else text
        if (nats := _NATS.fullmatch(text)) and nats[1] in _NATS_LEVELS:
            level, event = _NATS_LEVELS[nats[1]], nats[2].strip()
        self.last.append(event)
        fields = {key: value for key, value in said.items() if key not in _OURS}
        getattr(self._log, level)(event, **fields)


def _logrus(text: str) -> dict[str, Any]:
    """The fields of a line of logrus; empty for other lines."""
    if not text.startswith("{"):
        return {}
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) and "msg" in said else {}
