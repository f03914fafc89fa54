"""The errors of this package, and whose fault each one is.

::

    BuildKitError
    ├── ConnectionFailed    the daemon cannot be reached, or TLS or ALPN failed
    ├── ConnectionLost      the connection was lost before the daemon answered
    ├── ProtocolError       the daemon broke HTTP/2 or gRPC
    └── RPCError            the daemon answered with a gRPC status other than OK
        └── SolveError      the same for a solve: the build failed

`__cause__` is the error that caused this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
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
]


class StatusCode(IntEnum):
    """The status codes of gRPC (grpc/grpc, `doc/statuscodes.md`)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def of(cls, number: int) -> StatusCode:
        """The code of a number; UNKNOWN if gRPC does not define it."""
        try:
            return cls(number)
        except ValueError:
            return cls.UNKNOWN


class BuildKitError(Exception):
    """The base class of this package's errors."""


class ConnectionFailed(BuildKitError):
    """The daemon cannot be reached, or the TLS handshake failed.

    Attributes:
        address: where the client tried, such as `unix:///run/buildkit/buildkitd.sock`.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot connect to BuildKit at {address}: {reason}")
        self.address = address
        self.reason = reason


class ConnectionLost(BuildKitError):
    """The connection to the daemon was closed or lost before its answer."""


class ProtocolError(BuildKitError):
    """The daemon violated HTTP/2 or gRPC."""


@dataclass(frozen=True, slots=True)
class ErrorDetail:
    """One `google.protobuf.Any` of a `google.rpc.Status`.

    BuildKit's own details hold JSON, not protobuf (`util/grpcerrors/grpcerrors.go`).
    """

    type_url: str
    value: bytes


class RPCError(BuildKitError):
    """A gRPC status other than OK; its text is the daemon's message."""

    def __init__(self, code: StatusCode, message: str, details: Sequence[ErrorDetail] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = tuple(details)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code.name}, {self.message!r})"


@dataclass(frozen=True, slots=True)
class SourceRange:
    """A part of a source file. Lines count from 1, characters from 0."""

    start_line: int
    start_character: int
    end_line: int
    end_character: int


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Where in the Dockerfile a solve failed, with the file's whole text."""

    filename: str
    ranges: tuple[SourceRange, ...]
    text: str


class SolveError(RPCError):
    """A build failed; `str()` is BuildKit's message without any prefix.

    Attributes:
        source: the instruction that failed, if BuildKit named one.
        exit_code: of the process that failed, if one did.
        vertex: digest of the vertex that failed, if BuildKit named one.
        in_frontend: whether the frontend failed, which reads the Dockerfile and finds base images.
    """

    def __init__(
        self,
        code: StatusCode,
        message: str,
        details: Sequence[ErrorDetail] = (),
        *,
        source: SourceLocation | None = None,
        exit_code: int | None = None,
        vertex: str | None = None,
        in_frontend: bool = False,
    ) -> None:
        super().__init__(code, message, details)
        self.source = source
        self.exit_code = exit_code
        self.vertex = vertex
        self.in_frontend = in_frontend
