"""The HTTP service of the Function Builder API."""

from function_builder.server.errors import StartError
from function_builder.server.run import serve

__all__ = ["StartError", "serve"]
