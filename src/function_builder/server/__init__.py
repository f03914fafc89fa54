"""The HTTP service of the Function Builder API."""

from __future__ import annotations

from function_builder.errors import StartError
from function_builder.server.run import serve
from function_builder.server.start_checks import check_start

__all__ = ["StartError", "check_start", "serve"]
