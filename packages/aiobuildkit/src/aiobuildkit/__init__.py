"""An asyncio client of BuildKit.

::

    async with Client("unix:///run/buildkit/buildkitd.sock") as client:
        result = await client.build(".", name="registry.example/app:1", push=True)
        print(result.digest)

A name's module is imported when the name is first used (PEP 562), so that a program that needs one
module, such as `aiobuildkit.fsutil.ignorefile`, does not load the others, asyncio and protobuf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiobuildkit.client import Client
    from aiobuildkit.errors import (
        BuildKitError,
        ConnectionFailed,
        ConnectionLost,
        ErrorDetail,
        ProtocolError,
        RPCError,
        SolveError,
        SourceLocation,
        SourceRange,
        StatusCode,
    )
    from aiobuildkit.fsutil.sender import Entry, file_mode
    from aiobuildkit.model import (
        AttrCondition,
        AttrConstraint,
        BuildKitVersion,
        CacheEntry,
        Exporter,
        Platform,
        PruneOptions,
        SolveResult,
        SourceAction,
        SourceMatch,
        SourceRule,
        SourceUpdate,
        StatusEvent,
        Timeouts,
        UsageRecord,
        Vertex,
        VertexLog,
        VertexStatus,
        VertexWarning,
        WorkerInfo,
    )
    from aiobuildkit.rpc.connection import Address, TLSConfig
    from aiobuildkit.session.auth import Auth
    from aiobuildkit.session.directory import LocalDirectory
    from aiobuildkit.session.filesync import FileSync, FileTree, Transfer
    from aiobuildkit.session.health import Health
    from aiobuildkit.session.secrets import Secrets
    from aiobuildkit.session.session import Attachable, Handler, ServerStream
    from aiobuildkit.session.token_messages import Credentials, HTTPRequest, HTTPResponse
    from aiobuildkit.session.tokens import Tokens
    from aiobuildkit.solve import Solve
else:
    # Type checkers do not see this, so that they report a name that does not exist.
    from importlib import import_module

    _NAMES = {
        "client": ("Client",),
        "errors": (
            "BuildKitError",
            "ConnectionFailed",
            "ConnectionLost",
            "ErrorDetail",
            "ProtocolError",
            "RPCError",
            "SolveError",
            "SourceLocation",
            "SourceRange",
            "StatusCode",
        ),
        "fsutil.sender": (
            "Entry",
            "file_mode",
        ),
        "model": (
            "AttrCondition",
            "AttrConstraint",
            "BuildKitVersion",
            "CacheEntry",
            "Exporter",
            "Platform",
            "PruneOptions",
            "SolveResult",
            "SourceAction",
            "SourceMatch",
            "SourceRule",
            "SourceUpdate",
            "StatusEvent",
            "Timeouts",
            "UsageRecord",
            "Vertex",
            "VertexLog",
            "VertexStatus",
            "VertexWarning",
            "WorkerInfo",
        ),
        "rpc.connection": (
            "Address",
            "TLSConfig",
        ),
        "session.auth": ("Auth",),
        "session.directory": ("LocalDirectory",),
        "session.filesync": (
            "FileSync",
            "FileTree",
            "Transfer",
        ),
        "session.health": ("Health",),
        "session.secrets": ("Secrets",),
        "session.session": (
            "Attachable",
            "Handler",
            "ServerStream",
        ),
        "session.token_messages": ("Credentials", "HTTPRequest", "HTTPResponse"),
        "session.tokens": ("Tokens",),
        "solve": ("Solve",),
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value  # so that the next use does not come here
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "Address",
    "Attachable",
    "AttrCondition",
    "AttrConstraint",
    "Auth",
    "BuildKitError",
    "BuildKitVersion",
    "CacheEntry",
    "Client",
    "ConnectionFailed",
    "ConnectionLost",
    "Credentials",
    "Entry",
    "ErrorDetail",
    "Exporter",
    "FileSync",
    "FileTree",
    "HTTPRequest",
    "HTTPResponse",
    "Handler",
    "Health",
    "LocalDirectory",
    "Platform",
    "ProtocolError",
    "PruneOptions",
    "RPCError",
    "Secrets",
    "ServerStream",
    "Solve",
    "SolveError",
    "SolveResult",
    "SourceAction",
    "SourceLocation",
    "SourceMatch",
    "SourceRange",
    "SourceRule",
    "SourceUpdate",
    "StatusCode",
    "StatusEvent",
    "TLSConfig",
    "Timeouts",
    "Tokens",
    "Transfer",
    "UsageRecord",
    "Vertex",
    "VertexLog",
    "VertexStatus",
    "VertexWarning",
    "WorkerInfo",
    "file_mode",
]

__version__ = "0.1.0"
