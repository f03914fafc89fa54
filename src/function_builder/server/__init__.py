"""The HTTP service of the Function Builder API."""

from __future__ import annotations

from function_builder.errors import StartError
from function_builder.server.run import check_start, serve

__all__ = ["StartError", "check_start", "serve"]
