"""The audit log: one line of JSON for each decision about a request, in a file of its own.

Only a builder with `audit_log` imports this module. docs/audit.md lists the events and the keys.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from typing import Final

import structlog

from function_builder.errors import StartError
from function_builder.server.decisions import AuditEvent, Decision, TenantsRead

STANDARD_OUTPUT: Final = "-"

MAX_VALUE_CHARS: Final = 1024
"""The most characters of a value, because a client chooses some of them."""

_log = structlog.get_logger(__name__)


class AuditLog:
    """Writes decisions, each before the builder acts on it or answers.

    The file is opened for appending, and opened again after it was renamed. So logrotate may rename
    it, or copy and truncate it, without a signal.

    Args:
        path: the file, or `-` for standard output.

    Raises:
        StartError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        # Not a logger of `logging`, whose configuration could disable it or add lines.
        self._handler: logging.Handler
        try:
            self._handler = _Output(sys.stdout) if path == STANDARD_OUTPUT else _File(path)
        except OSError as error:
            raise StartError(f"audit_log {path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._handler.close()

    def note(self, event: AuditEvent, decision: Decision | TenantsRead) -> None:
        """Write a decision; if that fails, the builder's log has an error with the line."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event.value,
            "decision": "denied" if decision.why else "allowed",
            **{name: value[:MAX_VALUE_CHARS] for name, value in decision._asdict().items()},
        }
        # ASCII, so that a newline, an escape sequence or a character that changes the text
        # direction has no effect.
        text = json.dumps(line, ensure_ascii=True).replace("\x7f", "\\u007f")
        self._handler.handle(logging.makeLogRecord({"msg": text}))


class _Unwritten(logging.Handler):
    """Logs a line that could not be written, because `logging` would print it to stderr."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the name in logging)
        _log.error("a decision is not in the audit log", line=record.getMessage(), exc_info=True)


class _File(_Unwritten, WatchedFileHandler):
    """A file that logrotate may rename."""


class _Output(_Unwritten, logging.StreamHandler):  # type: ignore[type-arg]
    """Standard output."""
