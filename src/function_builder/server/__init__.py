"""The HTTP service of the Function Builder API."""

from function_builder.server.run import StartError, serve

__all__ = ["StartError", "serve"]
