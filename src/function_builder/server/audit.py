"""The audit log: one line of JSON for each decision about a request, in a file of its own.

Importing this is left to a builder with `audit_log`. docs/audit.md lists the events and the keys.
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
"""A client chooses the image, the target and the tenant that it claims."""

_log = structlog.get_logger(__name__)


class AuditLog:
    """Writes decisions, each before the builder acts on it or answers it.

    The file is opened for appending, and opened again when another file has its name. So logrotate
    may rename it, or copy and truncate it; no signal is needed.

    Args:
        path: the file, or `-` for standard output.

    Raises:
        StartError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        # No logger of the process: none of its configurations turns this off or adds lines to it.
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
        """Write a decision; one that cannot be written is an error in the builder's log."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event.value,
            "decision": "denied" if decision.why else "allowed",
            **{name: value[:MAX_VALUE_CHARS] for name, value in decision._asdict().items()},
        }
        # ASCII: a line's end, an escape sequence or a character that changes the direction of
        # writing stays inside its string.
        text = json.dumps(line, ensure_ascii=True).replace("\x7f", "\\u007f")
        self._handler.handle(logging.makeLogRecord({"msg": text}))


class _Unwritten(logging.Handler):
    """Says in the builder's log what the audit log lacks: its own errors go to no log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (its name in logging)
        _log.error("a decision is not in the audit log", line=record.getMessage(), exc_info=True)


class _File(_Unwritten, WatchedFileHandler):
    """A file that logrotate may rename."""


class _Output(_Unwritten, logging.StreamHandler):  # type: ignore[type-arg]
    """Standard output."""
