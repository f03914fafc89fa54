"""An asyncio client of BuildKit.

::

    async with Client("unix:///run/buildkit/buildkitd.sock") as client:
        result = await client.build(".", name="registry.example/app:1", push=True)
        print(result.digest)
"""

from __future__ import annotations

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
    BuildKitVersion,
    CacheEntry,
    Exporter,
    Platform,
    PruneOptions,
    SolveResult,
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
from aiobuildkit.session.tokens import Credentials, HTTPRequest, HTTPResponse, Tokens
from aiobuildkit.solve import Solve

__all__ = [
    "Address",
    "Attachable",
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
    "SourceLocation",
    "SourceRange",
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
