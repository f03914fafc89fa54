"""Structured log lines."""

from __future__ import annotations

import logging
import sys
from typing import Final, TextIO

import structlog

MAX_LOGGED_CHARS: Final = 4096
"""A text in a log line is not longer, a traceback included; its beginning and end are kept."""


def configure_logging(
    *, json: bool, file: TextIO | None = None, observe: structlog.typing.Processor | None = None
) -> None:
    """Write log lines to `file`, or standard error: JSON for machines, columns for people.

    Args:
        json: the form.
        file: where to.
        observe: sees each line of this program before it is written, with all its values.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=(file or sys.stderr).isatty())
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
        cut_values,
    ]
    structlog.configure(
        processors=[*processors, *([observe] if observe else []), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file or sys.stderr),
        cache_logger_on_first_use=True,
    )
    # The libraries' own warnings, uvicorn's above all, in the same form.
    handler = logging.StreamHandler(file)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=processors)
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def cut_values(
    _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Cut long texts in their middle: a Dockerfile can make a build's error a megabyte long."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) > MAX_LOGGED_CHARS:
            cut = len(value) - MAX_LOGGED_CHARS
            half = MAX_LOGGED_CHARS // 2
            event[name] = f"{value[:half]}… ({cut} characters cut) …{value[-half:]}"
    return event
