"""An open Function Builder API: a signed tar in, a container image out.

::

    from function_builder import Client

The names here are those of `function_builder.client`, which is loaded with the first of them: a
server does not pay for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from function_builder.client import (
        AsyncClient,
        BuildFailed,
        BuildOptions,
        BuildResult,
        BuildStatus,
        Client,
        ClientError,
        ContextError,
        File,
        Refused,
        Unreachable,
    )

__all__ = [
    "AsyncClient",
    "BuildFailed",
    "BuildOptions",
    "BuildResult",
    "BuildStatus",
    "Client",
    "ClientError",
    "ContextError",
    "File",
    "Refused",
    "Unreachable",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.client"), name)
